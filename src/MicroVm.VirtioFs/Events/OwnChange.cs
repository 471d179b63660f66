using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Protocol;

namespace MicroVm.VirtioFs.Events;

/// <summary>
/// Which of the host's events a request of the guest causes: the guest's kernel has told its own processes of these already.
/// </summary>
/// <param name="node">The inode that the request is about: the folder, when it has names.</param>
/// <param name="mask">The events.</param>
/// <param name="first">The name that it is about; for a request without names, the name of <paramref name="node"/>.</param>
/// <param name="second">Another name; empty for none.</param>
internal readonly ref struct OwnChange(ulong node, uint mask, ReadOnlySpan<byte> first, ReadOnlySpan<byte> second)
{
    private readonly ReadOnlySpan<byte> _first = first;
    private readonly ReadOnlySpan<byte> _second = second;

    /// <summary>The events that an operation may cause; 0 when it changes nothing.</summary>
    public static uint EventsOf(FuseOpcode opcode) => opcode switch
    {
        FuseOpcode.FUSE_CREATE => Libc.IN_CREATE | Libc.IN_MODIFY | Libc.IN_ATTRIB | Libc.IN_CLOSE_WRITE,
        FuseOpcode.FUSE_MKNOD or FuseOpcode.FUSE_MKDIR or FuseOpcode.FUSE_SYMLINK or FuseOpcode.FUSE_LINK
            => Libc.IN_CREATE | Libc.IN_ATTRIB | Libc.IN_CLOSE_WRITE,
        FuseOpcode.FUSE_UNLINK or FuseOpcode.FUSE_RMDIR => Libc.IN_DELETE | Libc.IN_DELETE_SELF | Libc.IN_ATTRIB,
        FuseOpcode.FUSE_RENAME or FuseOpcode.FUSE_RENAME2
            => Libc.IN_MOVED_FROM | Libc.IN_MOVED_TO | Libc.IN_MOVE_SELF | Libc.IN_DELETE_SELF | Libc.IN_ATTRIB,
        FuseOpcode.FUSE_WRITE or FuseOpcode.FUSE_FALLOCATE or FuseOpcode.FUSE_COPY_FILE_RANGE or FuseOpcode.FUSE_SETATTR
            or FuseOpcode.FUSE_OPEN => Libc.IN_MODIFY | Libc.IN_ATTRIB | Libc.IN_CLOSE_WRITE,
        FuseOpcode.FUSE_SETXATTR or FuseOpcode.FUSE_REMOVEXATTR or FuseOpcode.FUSE_IOCTL => Libc.IN_ATTRIB,

        // Descriptors that have a file's locks are closed by these.
        FuseOpcode.FUSE_RELEASE or FuseOpcode.FUSE_FLUSH or FuseOpcode.FUSE_SETLK or FuseOpcode.FUSE_SETLKW => Libc.IN_CLOSE_WRITE,
        _ => 0,
    };

    /// <summary>Whether the operation's arguments are names in a folder.</summary>
    public static bool HasNames(FuseOpcode opcode) => opcode is FuseOpcode.FUSE_CREATE or FuseOpcode.FUSE_MKNOD or FuseOpcode.FUSE_MKDIR
        or FuseOpcode.FUSE_SYMLINK or FuseOpcode.FUSE_LINK or FuseOpcode.FUSE_UNLINK or FuseOpcode.FUSE_RMDIR or FuseOpcode.FUSE_RENAME
        or FuseOpcode.FUSE_RENAME2;

    /// <summary>Whether an event is one of these.</summary>
    /// <param name="events">Its mask.</param>
    /// <param name="watched">The inode whose watch told it.</param>
    /// <param name="name">The name in it; empty for the inode itself.</param>
    /// <param name="hasNames">The request has names, and so changes an inode that it does not name by id.</param>
    public bool Is(uint events, ulong watched, ReadOnlySpan<byte> name, bool hasNames) =>
        (events & mask & HostWatches.Events) != 0
        && (name.IsEmpty ? hasNames || watched == node : name.SequenceEqual(_first) || (!_second.IsEmpty && name.SequenceEqual(_second)));
}
