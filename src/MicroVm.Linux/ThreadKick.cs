using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>
/// Interrupts a blocking system call of another thread of this process: a real-time signal whose handler does nothing,
/// so that the call ends with EINTR.
/// </summary>
/// <remarks>
/// The handler cannot be managed code: the signal may arrive at any instruction of a thread that is running managed code.
/// It is a page of machine code that returns at once, made before <see cref="Signal"/> can first be called and never
/// freed. (The other way, keeping the signal blocked and opening it only within KVM_RUN by KVM_SET_SIGNAL_MASK, costs two
/// mask changes for each exit and a sigtimedwait for each kick.) A signal that finds the thread outside a system call is
/// lost, so the caller first stores a flag that the call itself looks at, as kvm_run.immediate_exit is.
/// </remarks>
public static unsafe class ThreadKick
{
    /// <summary>The signal used: SIGRTMIN + 6 of glibc. The runtime's own use is SIGRTMIN.</summary>
    public const int SignalNumber = 40;

    private static readonly Lock InstallLock = new();
    private static ExecutableCode? s_handler;

    /// <summary>The kernel's id of the calling thread, for <see cref="Signal"/>.</summary>
    public static int CurrentThreadId => Libc.gettid();

    /// <summary>Installs the handler; called again, it does nothing.</summary>
    /// <exception cref="LinuxException">The page or the handler is refused (a seccomp filter installed too early).</exception>
    public static void Install()
    {
        lock (InstallLock)
        {
            if (s_handler is null)
            {
                InstallHandler();
            }
        }
    }

    /// <summary>Interrupts thread <paramref name="threadId"/> of this process; a thread that has ended is no error.</summary>
    public static void Signal(int threadId) => _ = Libc.tgkill(Libc.getpid(), threadId, SignalNumber);

    private static void InstallHandler()
    {
        // endbr64; ret: valid under control-flow enforcement too.
        s_handler = new ExecutableCode([0xf3, 0x0f, 0x1e, 0xfa, 0xc3]);
        Libc.sigaction_t action = new() { sa_handler = s_handler.EntryPoint, sa_flags = Libc.SA_RESTART };
        Check.Result(Libc.sigaction(SignalNumber, &action, null), "sigaction", $"signal {SignalNumber}");
    }
}
