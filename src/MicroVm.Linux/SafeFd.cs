using System.Runtime.InteropServices;
using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>An owned file descriptor; closed once, when disposed or finalised.</summary>
/// <remarks>
/// Ownership: whoever holds a <see cref="SafeFd"/> disposes of it. <see cref="Value"/> borrows the number for a call
/// while the owner is alive; it is not to be stored.
/// </remarks>
public sealed class SafeFd : SafeHandle
{
    /// <summary>Takes ownership of <paramref name="fd"/>.</summary>
    public SafeFd(int fd)
        : base(-1, ownsHandle: true) => SetHandle(fd);

    /// <summary>An invalid descriptor, for marshalling.</summary>
    public SafeFd()
        : base(-1, ownsHandle: true)
    {
    }

    /// <inheritdoc/>
    public override bool IsInvalid => handle < 0;

    /// <summary>The descriptor's number, borrowed.</summary>
    /// <exception cref="ObjectDisposedException">The descriptor was closed.</exception>
    public int Value
    {
        get
        {
            ObjectDisposedException.ThrowIf(IsClosed, this);
            return (int)handle;
        }
    }

    /// <summary>Gives up ownership and returns the number.</summary>
    public int Release()
    {
        int fd = Value;
        SetHandleAsInvalid();
        return fd;
    }

    /// <summary>Wraps the result of a call that returns a new descriptor.</summary>
    /// <exception cref="LinuxException">The call failed.</exception>
    public static SafeFd From(int result, string operation, string? target = null) =>
        new(Check.Result(result, operation, target));

    /// <summary>Duplicates the descriptor, close-on-exec.</summary>
    /// <exception cref="LinuxException">The process has no free descriptor.</exception>
    public SafeFd Duplicate() => From(Libc.fcntl(Value, Libc.F_DUPFD_CLOEXEC, 0), "fcntl(F_DUPFD_CLOEXEC)");

    /// <inheritdoc/>
    protected override bool ReleaseHandle() => Libc.close((int)handle) == 0;
}
