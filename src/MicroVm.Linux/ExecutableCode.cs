using System.Runtime.InteropServices;
using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>
/// A page of machine code, for the few instructions that managed code cannot express. Written while it is not executable
/// and executable only once it is not writable. Owns its mapping.
/// </summary>
public sealed unsafe class ExecutableCode : SafeHandle
{
    private readonly nuint _length;

    /// <summary>Maps a copy of <paramref name="code"/>.</summary>
    /// <exception cref="LinuxException">The mapping is refused (a seccomp filter or a policy against executable memory).</exception>
    public ExecutableCode(ReadOnlySpan<byte> code)
        : base(-1, ownsHandle: true)
    {
        const int PageSize = 4096;
        _length = (nuint)((code.Length + PageSize - 1) / PageSize * PageSize);
        void* p = Libc.mmap(null, _length, Libc.PROT_READ | Libc.PROT_WRITE, Libc.MAP_PRIVATE | Libc.MAP_ANONYMOUS, -1, 0);
        if ((nint)p == -1)
        {
            Check.Throw("mmap", "code page");
        }

        SetHandle((nint)p);
        code.CopyTo(new Span<byte>(p, code.Length));
        Check.Result(Libc.mprotect(p, _length, Libc.PROT_READ | Libc.PROT_EXEC), "mprotect(PROT_EXEC)", "code page");
    }

    /// <inheritdoc/>
    public override bool IsInvalid => handle == -1;

    /// <summary>First byte of the code; to be called only while this object is alive.</summary>
    public void* EntryPoint => (void*)handle;

    /// <inheritdoc/>
    protected override bool ReleaseHandle() => Libc.munmap((void*)handle, _length) == 0;
}
