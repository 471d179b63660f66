using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Fs.Protocol;

namespace MicroVm.Vmm.Fs;

/// <content>Extended attributes.</content>
/// <remarks>
/// The f*xattr calls refuse O_PATH descriptors. A thread that serves requests has /proc/self/fd as its working directory,
/// where the path "N" leads to descriptor N's inode, a symbolic link included, which is not followed further.
/// </remarks>
internal sealed unsafe partial class FuseServer
{
    /// <summary>
    /// The guest's own attributes: user.*, trusted.* (overlayfs marks its directories with it) and file capabilities. Other
    /// security.* are labels of the host's policy; system.posix_acl_* would be obeyed by the host and not by the guest.
    /// user.microvm.* is this server's: who could write it would make devices of files.
    /// </summary>
    private static bool IsXattrAllowed(ReadOnlySpan<byte> name) =>
        (name.StartsWith("user."u8) && !name.StartsWith(DeviceMark.ReservedPrefix)) || name.StartsWith("trusted."u8) || name.SequenceEqual("security.capability"u8);

    /// <summary>Takes the attribute's name: one string that makes up the rest of the request, or is followed by a value.</summary>
    private static int ReadXattrName(FuseRequest r, int offset, out byte* name)
    {
        int error = r.ReadStrings(offset, 1, out name, out int length, out _, out _);
        return error != 0 ? error : CheckXattrName(new ReadOnlySpan<byte>(name, length));
    }

    private static int CheckXattrName(ReadOnlySpan<byte> name) =>
        name.Length is 0 or > Libc.XATTR_NAME_MAX ? Fail(Errno.ERANGE)
        : IsXattrAllowed(name) ? 0
        : Fail(Errno.EOPNOTSUPP);

    private int GetXattr(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_getxattr_in get))
        {
            return Fail(Errno.EINVAL);
        }

        int error = ReadXattrName(r, sizeof(fuse_getxattr_in), out byte* name);
        if (error != 0)
        {
            return error;
        }

        if (!_inodes.TryPin(r.NodeId, out InodePin inode))
        {
            return Fail(r.NodeId == Fuse.FUSE_ROOT_ID ? Errno.ENODATA : Errno.ESTALE);
        }

        using InodePin pinned = inode;
        byte* link = stackalloc byte[ProcFd.NameLength];
        ProcFd.Format(inode.Fd, link);
        nint n = Libc.getxattr(link, name, get.size == 0 ? null : r.Scratch, Math.Min(get.size, FuseRequest.ScratchLength));
        return n < 0 ? Failed() : ReplyXattr(r, get.size, (int)n);
    }

    private int ListXattr(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_getxattr_in list))
        {
            return Fail(Errno.EINVAL);
        }

        if (!_inodes.TryPin(r.NodeId, out InodePin inode))
        {
            return r.NodeId == Fuse.FUSE_ROOT_ID ? ReplyXattr(r, list.size, 0) : Fail(Errno.ESTALE);
        }

        using InodePin pinned = inode;
        byte* link = stackalloc byte[ProcFd.NameLength];
        ProcFd.Format(inode.Fd, link);
        nint n = Libc.listxattr(link, r.Scratch, FuseRequest.ScratchLength);
        return n < 0 ? Failed() : ReplyXattr(r, list.size, KeepAllowedNames(new Span<byte>(r.Scratch, (int)n)));
    }

    /// <summary>Answers a request for <paramref name="size"/> bytes with the scratch buffer's first <paramref name="length"/>.</summary>
    private static int ReplyXattr(FuseRequest r, uint size, int length) =>
        size == 0 ? r.Reply(new fuse_getxattr_out { size = (uint)length })
        : (uint)length > size || (ulong)length > r.Room ? Fail(Errno.ERANGE)
        : r.Reply(r.Scratch, length);

    /// <summary>Drops the names that GETXATTR would refuse; the length of what is left.</summary>
    private static int KeepAllowedNames(Span<byte> names)
    {
        int kept = 0;
        for (int at = 0; at < names.Length;)
        {
            int length = names[at..].IndexOf((byte)0) + 1;
            if (length == 0)
            {
                break;
            }

            if (IsXattrAllowed(names.Slice(at, length - 1)))
            {
                names.Slice(at, length).CopyTo(names[kept..]);
                kept += length;
            }

            at += length;
        }

        return kept;
    }

    private int SetXattr(FuseRequest r)
    {
        // SETXATTR_EXT is not negotiated: the struct is the short one, size and flags.
        const int Head = Fuse.FUSE_COMPAT_SETXATTR_IN_SIZE;
        fuse_setxattr_in set = default;
        if (r.Read(0, (byte*)&set, Head) != Head || r.ArgumentLength > (ulong)(Head + Libc.XATTR_NAME_MAX + 1) + set.size)
        {
            return Fail(Errno.EINVAL);
        }

        if (set.size > Libc.XATTR_SIZE_MAX)
        {
            return Fail(Errno.E2BIG);
        }

        // The name ends where the value's length, counted from the end, begins.
        byte* name = stackalloc byte[Libc.XATTR_NAME_MAX + 1];
        int nameLength = (int)(r.ArgumentLength - Head) - (int)set.size - 1;
        if (nameLength is < 1 or > Libc.XATTR_NAME_MAX || r.Read(Head, name, nameLength + 1) != nameLength + 1)
        {
            return Fail(Errno.EINVAL);
        }

        ReadOnlySpan<byte> text = new(name, nameLength + 1);
        if (text.IndexOf((byte)0) != nameLength)
        {
            return Fail(Errno.EINVAL);
        }

        int error = CheckXattrName(text[..^1]);
        if (error != 0)
        {
            return error;
        }

        if (_stripSetId && text[..^1].SequenceEqual("security.capability"u8))
        {
            return Fail(Errno.EPERM);
        }

        error = PinForChange(r.NodeId, out InodePin inode);
        if (error != 0)
        {
            return error;
        }

        using InodePin pinned = inode;
        if (r.Read((ulong)(Head + nameLength + 1), r.Scratch, (int)set.size) != (int)set.size)
        {
            return Fail(Errno.EINVAL);
        }

        byte* link = stackalloc byte[ProcFd.NameLength];
        ProcFd.Format(inode.Fd, link);
        error = Result(Libc.setxattr(link, name, r.Scratch, set.size, (int)set.flags));
        RefreshChanged(inode);
        return error;
    }

    private int RemoveXattr(FuseRequest r)
    {
        int error = ReadXattrName(r, 0, out byte* name);
        if (error != 0)
        {
            return error;
        }

        error = PinForChange(r.NodeId, out InodePin inode);
        if (error != 0)
        {
            return error;
        }

        using InodePin pinned = inode;
        byte* link = stackalloc byte[ProcFd.NameLength];
        ProcFd.Format(inode.Fd, link);
        error = Result(Libc.removexattr(link, name));
        RefreshChanged(inode);
        return error;
    }
}
