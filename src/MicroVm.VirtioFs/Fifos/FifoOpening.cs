using MicroVm.Linux.Native;

namespace MicroVm.VirtioFs.Fifos;

/// <summary>An open(2) of a FIFO (OPEN_FIFO), which may wait for the other end.</summary>
/// <param name="Node">The inode's node id.</param>
/// <param name="Flags">O_ACCMODE and O_NONBLOCK.</param>
internal readonly record struct FifoOpening(ulong Node, uint Flags)
{
    /// <summary>The handle; 0 until it has one.</summary>
    public ulong Handle { get; init; }

    /// <summary>It waits for the other end: not with O_NONBLOCK, and O_RDWR is both ends (fifo(7)).</summary>
    public bool MayWait => (Flags & Libc.O_NONBLOCK) == 0 && (Flags & Libc.O_ACCMODE) != Libc.O_RDWR;
}
