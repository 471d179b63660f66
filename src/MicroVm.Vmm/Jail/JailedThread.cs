using System.Text;
using MicroVm.Linux.Native;

namespace MicroVm.Vmm.Jail;

/// <summary>What every thread of the VMM does first.</summary>
public static unsafe class JailedThread
{
    // TASK_COMM_LEN with its NUL.
    private const int NameLength = 16;

    /// <summary>Tells the kernel the calling thread's name, and leaves the thread only what its kind needs.</summary>
    /// <exception cref="Linux.LinuxException">The filter is refused.</exception>
    public static void Begin(ThreadKind kind)
    {
        byte* name = stackalloc byte[NameLength];
        new Span<byte>(name, NameLength).Clear();
        Encoding.UTF8.TryGetBytes(Thread.CurrentThread.Name, new Span<byte>(name, NameLength - 1), out _);
        _ = Libc.prctl(Libc.PR_SET_NAME, (nuint)name, 0, 0, 0);
        SystemCallFilter.Narrow(kind);
    }
}
