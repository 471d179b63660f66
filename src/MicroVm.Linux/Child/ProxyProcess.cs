using MicroVm.Linux.Native;

namespace MicroVm.Linux.Child;

/// <summary>
/// Starts a process of a few pages of memory that stands for another one (proxy.S): it tells the signals that it gets on a socket, ends
/// as a message there says, and by SIGKILL when the socket ends. It has a session of its own, no capabilities, and no way to gain any.
/// </summary>
public static unsafe class ProxyProcess
{
    // What is above the numbers in use: the report pipe and the program, which close with exec.
    private const int FirstFree = 3, SignalSetSize = 8, LastSignal = 64;

    private enum Step : uint
    {
        Session = 1,
        Descriptors,
        Signals,
        Rights,
        Exec,
    }

    /// <summary>Starts one as a child of this process, in the calling thread's namespaces and root directory.</summary>
    /// <param name="socket">The proxy's end of a pair of stream sockets; borrowed.</param>
    /// <param name="arguments">What is seen of it in lists of processes, the name first.</param>
    /// <param name="environment">"NAME=value".</param>
    /// <exception cref="LinuxException">A step failed, or no process or descriptor is free.</exception>
    public static SpawnedProcess Start(SafeFd socket, IReadOnlyList<string> arguments, IReadOnlyList<string> environment)
    {
        ArgumentNullException.ThrowIfNull(socket);
        (SafeFd read, SafeFd write) = Pipe.Create();
        using SafeFd reportRead = read, low = write;
        using SafeFd executable = MemoryFile.CreateSealed("proxy", ProxyCode.Bytes);
        using SafeFd reportWrite = Raise(low), code = Raise(executable), itsSocket = Raise(socket);
        low.Dispose();
        using ChildProgram program = new(reportWrite.Value);
        Add(program, Step.Session, Libc.SYS_setsid);
        Add(program, Step.Descriptors, Libc.SYS_dup3, itsSocket.Value, 0, 0);
        const int cloexec = 4;
        Add(program, Step.Descriptors, Libc.SYS_close_range, 1, int.MaxValue, cloexec);

        // All but those that stop a process by job control: these are not handed on.
        ulong blocked = ~((1ul << (Libc.SIGTSTP - 1)) | (1ul << (Libc.SIGTTIN - 1)) | (1ul << (Libc.SIGTTOU - 1)));
        Add(program, Step.Signals, Libc.SYS_rt_sigprocmask, Libc.SIG_SETMASK, program.Record<ulong>([blocked]), 0, SignalSetSize);
        nint standard = program.Record<ulong>([0, 0, 0, 0]);
        for (int signal = 1; signal <= LastSignal; signal++)
        {
            // One that this process ignores would be ignored there; SIGKILL and SIGSTOP cannot be.
            program.Add((uint)Step.Signals, StepMode.Ignore, Libc.SYS_rt_sigaction, signal, standard, 0, SignalSetSize);
        }

        Add(program, Step.Rights, Libc.SYS_prctl, Libc.PR_SET_NO_NEW_PRIVS, 1);
        nint header = program.Record<Libc.__user_cap_header_struct>([new() { version = Libc._LINUX_CAPABILITY_VERSION_3 }]);
        Add(program, Step.Rights, Libc.SYS_capset, header, program.Record<Libc.__user_cap_data_struct>(new Libc.__user_cap_data_struct[2]));
        Add(program, Step.Exec, Libc.SYS_execveat, code.Value, program.String(""), program.Strings(arguments), program.Strings(environment), Libc.AT_EMPTY_PATH);
        Libc.clone_args args = new() { flags = Libc.CLONE_VM | Libc.CLONE_CLEAR_SIGHAND, exit_signal = Libc.SIGCHLD };
        nint pid = ChildCode.Spawn(&args, program.Steps);
        if (pid < 0)
        {
            throw new LinuxException((Errno)(-pid), "clone3", "proxy");
        }

        SpawnedProcess process = new((int)pid);
        reportWrite.Dispose();
        if (Failure(reportRead) is { } failure)
        {
            _ = process.Kill();
            process.Dispose();
            throw new LinuxException(failure.Errno, $"start the container's process: {failure.Step.ToString().ToLowerInvariant()}");
        }

        return process;
    }

    // The pipe ends with the exec, and before that with the program that it reads from this process's memory.
    private static (Step Step, Errno Errno)? Failure(SafeFd report)
    {
        int* record = stackalloc int[2];
        nint n;
        do
        {
            n = Libc.read(report.Value, record, 8);
        }
        while (Check.Retry(n));
        return n == 8 ? ((Step)record[0], (Errno)record[1]) : null;
    }

    private static SafeFd Raise(SafeFd source) => SafeFd.From(Libc.fcntl(source.Value, Libc.F_DUPFD_CLOEXEC, FirstFree), "fcntl(F_DUPFD_CLOEXEC)");

    private static void Add(ChildProgram program, Step step, long number, nint a0 = 0, nint a1 = 0, nint a2 = 0, nint a3 = 0, nint a4 = 0) =>
        program.Add((uint)step, StepMode.Report, number, a0, a1, a2, a3, a4);
}
