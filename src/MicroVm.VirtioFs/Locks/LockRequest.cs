using MicroVm.Linux.Native;

namespace MicroVm.VirtioFs.Locks;

/// <summary>A lock that a guest asks for, is asked about or gives up (SETLK, SETLKW, GETLK), checked.</summary>
internal readonly record struct LockRequest
{
    /// <summary>The inode's node id.</summary>
    public required ulong Node { get; init; }

    /// <summary>Who it is for: the guest kernel's name for a process, or for an open file.</summary>
    public required ulong Owner { get; init; }

    /// <summary>The handle by which it is asked for.</summary>
    public required ulong Handle { get; init; }

    /// <summary>F_RDLCK, F_WRLCK or F_UNLCK.</summary>
    public required uint Type { get; init; }

    /// <summary>First byte.</summary>
    public required long Start { get; init; }

    /// <summary>Last byte, not below <see cref="Start"/>; the largest number stands for the end of the file.</summary>
    public required long End { get; init; }

    /// <summary>The process's id in the guest.</summary>
    public required uint Pid { get; init; }

    /// <summary>It is flock(2)'s: of the open file, and of the whole of it.</summary>
    public required bool IsFlock { get; init; }

    /// <summary>What flock(2) is to be called with, so that it does not wait.</summary>
    public int FlockOperation => Type == Libc.F_UNLCK ? Libc.LOCK_UN
        : Libc.LOCK_NB | (Type == Libc.F_WRLCK ? Libc.LOCK_EX : Libc.LOCK_SH);
}
