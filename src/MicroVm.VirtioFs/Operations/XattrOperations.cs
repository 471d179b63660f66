using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.HostFiles;
using MicroVm.VirtioFs.Inodes;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;
using static MicroVm.VirtioFs.Protocol.FuseResult;

namespace MicroVm.VirtioFs.Operations;

/// <summary>GETXATTR, LISTXATTR, SETXATTR and REMOVEXATTR.</summary>
/// <remarks>
/// The f*xattr calls refuse O_PATH descriptors. A thread that serves requests has /proc/self/fd as its working directory,
/// where the path "N" leads to descriptor N's inode, a symbolic link included, which is not followed further.
/// </remarks>
internal sealed class XattrOperations(FsContext fs)
{
    // Safe: host has room for MaxLength bytes, the scratch buffer for ScratchLength.
    public unsafe int Get(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_getxattr_in get))
        {
            return Fail(Errno.EINVAL);
        }

        byte* host = stackalloc byte[XattrNames.MaxLength];
        int error = ReadName(r, sizeof(fuse_getxattr_in), host, out ReadOnlySpan<byte> name);
        if (error != 0)
        {
            return error;
        }

        if (!fs.Inodes.TryPin(r.NodeId, out InodePin inode))
        {
            return Fail(fs.Synthetic.Is(r.NodeId) ? Errno.ENODATA : Errno.ESTALE);
        }

        using InodePin pinned = inode;
        byte* link = stackalloc byte[ProcFd.NameLength];
        ProcFd.Format(inode.Fd, link);
        nint n = Libc.getxattr(link, host, get.size == 0 ? null : r.Scratch, Math.Min(get.size, FuseRequest.ScratchLength));

        // The guest's kernel takes an error for a refusal, and asks for the ACL of every file.
        return n >= 0 ? Reply(r, get.size, (int)n)
            : Check.LastErrno == Errno.EOPNOTSUPP && XattrNames.IsAcl(name) ? Fail(Errno.ENODATA)
            : Failed();
    }

    // Safe: the kernel writes at most ScratchLength bytes to the scratch buffer, and says how many.
    public unsafe int List(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_getxattr_in list))
        {
            return Fail(Errno.EINVAL);
        }

        if (!fs.Inodes.TryPin(r.NodeId, out InodePin inode))
        {
            return fs.Synthetic.Is(r.NodeId) ? Reply(r, list.size, 0) : Fail(Errno.ESTALE);
        }

        using InodePin pinned = inode;
        byte* link = stackalloc byte[ProcFd.NameLength];
        ProcFd.Format(inode.Fd, link);
        nint n = Libc.listxattr(link, r.Scratch, FuseRequest.ScratchLength);
        return n < 0 ? Failed() : Reply(r, list.size, XattrNames.ToGuest(new Span<byte>(r.Scratch, (int)n), withTrusted: r.Header.uid == 0));
    }

    // Safe: the name's length is checked against the buffer, the value's against the scratch buffer.
    public unsafe int Set(FuseRequest r)
    {
        int head = fs.Session.SetXattrIsLong ? sizeof(fuse_setxattr_in) : Fuse.FUSE_COMPAT_SETXATTR_IN_SIZE;
        fuse_setxattr_in set = default;
        if (r.Read(0, (byte*)&set, head) != head || r.ArgumentLength > (ulong)(head + Libc.XATTR_NAME_MAX + 1) + set.size)
        {
            return Fail(Errno.EINVAL);
        }

        if (set.size > Libc.XATTR_SIZE_MAX)
        {
            return Fail(Errno.E2BIG);
        }

        // The name ends where the value's length, counted from the end, begins.
        byte* name = stackalloc byte[Libc.XATTR_NAME_MAX + 1];
        int nameLength = (int)(r.ArgumentLength - (ulong)head) - (int)set.size - 1;
        if (nameLength is < 1 or > Libc.XATTR_NAME_MAX || r.Read((ulong)head, name, nameLength + 1) != nameLength + 1)
        {
            return Fail(Errno.EINVAL);
        }

        ReadOnlySpan<byte> text = new(name, nameLength + 1);
        if (text.IndexOf((byte)0) != nameLength)
        {
            return Fail(Errno.EINVAL);
        }

        text = text[..^1];
        byte* host = stackalloc byte[XattrNames.MaxLength];
        int error = XattrNames.ToHost(text, host);
        if (error != 0)
        {
            return error == Fail(Errno.ENODATA) ? Fail(Errno.EPERM) : error;
        }

        if (fs.StripsSetId && text.SequenceEqual("security.capability"u8))
        {
            return Fail(Errno.EPERM);
        }

        error = fs.PinForChange(r.NodeId, out InodePin inode);
        if (error != 0)
        {
            return error;
        }

        using InodePin pinned = inode;
        if (r.Read((ulong)(head + nameLength + 1), r.Scratch, (int)set.size) != (int)set.size)
        {
            return Fail(Errno.EINVAL);
        }

        if (inode.FileType is not (Libc.S_IFREG or Libc.S_IFDIR) && XattrNames.IsMapped(text))
        {
            return XattrNames.IsHint(text) ? 0 : Fail(Errno.EPERM);
        }

        byte* link = stackalloc byte[ProcFd.NameLength];
        ProcFd.Format(inode.Fd, link);
        r.Credentials.ClearSetIdBits((set.setxattr_flags & Fuse.FUSE_SETXATTR_ACL_KILL_SGID) != 0);
        error = Result(Libc.setxattr(link, host, r.Scratch, set.size, (int)set.flags));
        r.Credentials.ClearSetIdBits(false);
        fs.RefreshChanged(inode);
        return error;
    }

    // Safe: host has room for MaxLength bytes.
    public unsafe int Remove(FuseRequest r)
    {
        byte* host = stackalloc byte[XattrNames.MaxLength];
        int error = ReadName(r, 0, host, out _);
        if (error != 0)
        {
            return error;
        }

        error = fs.PinForChange(r.NodeId, out InodePin inode);
        if (error != 0)
        {
            return error;
        }

        using InodePin pinned = inode;
        byte* link = stackalloc byte[ProcFd.NameLength];
        ProcFd.Format(inode.Fd, link);
        error = Result(Libc.removexattr(link, host));
        fs.RefreshChanged(inode);
        return error;
    }

    /// <summary>Takes the attribute's name, one string that makes up the rest of the request, and gives the host's.</summary>
    // Safe: the name lies in the request's buffer; host is the caller's, with room for MaxLength bytes.
    private static unsafe int ReadName(FuseRequest r, int offset, byte* host, out ReadOnlySpan<byte> name)
    {
        int error = r.ReadStrings(offset, 1, out byte* text, out int length, out _, out _);
        name = error != 0 ? default : new ReadOnlySpan<byte>(text, length);
        return error != 0 ? error : XattrNames.ToHost(name, host);
    }

    /// <summary>Answers a request for <paramref name="size"/> bytes with the scratch buffer's first <paramref name="length"/>.</summary>
    // Safe: callers have filled that much of the scratch buffer.
    private static unsafe int Reply(FuseRequest r, uint size, int length) =>
        size == 0 ? r.Reply(new fuse_getxattr_out { size = (uint)length })
        : (uint)length > size || (ulong)length > r.Room ? Fail(Errno.ERANGE)
        : r.Reply(r.Scratch, length);
}
