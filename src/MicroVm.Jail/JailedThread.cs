using System.Text;
using MicroVm.Linux.Native;

namespace MicroVm.Jail;

/// <summary>What the threads of the VMM are told before the system call filter is on.</summary>
public static class JailedThread
{
    // TASK_COMM_LEN with its NUL.
    private const int NameLength = 16;

    /// <summary>Tells the kernel the calling thread's name: at most 15 bytes of it.</summary>
    // Safe: the kernel reads a name of this call that ends with a NUL: its last byte is never written.
    public static unsafe void Name(string name)
    {
        byte* bytes = stackalloc byte[NameLength];
        new Span<byte>(bytes, NameLength).Clear();
        Encoding.UTF8.TryGetBytes(name, new Span<byte>(bytes, NameLength - 1), out _);
        _ = Libc.prctl(Libc.PR_SET_NAME, (nuint)bytes, 0, 0, 0);
    }
}
