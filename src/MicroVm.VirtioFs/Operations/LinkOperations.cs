using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.HostFiles;
using MicroVm.VirtioFs.Inodes;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;
using static MicroVm.VirtioFs.Protocol.FuseResult;

namespace MicroVm.VirtioFs.Operations;

/// <summary>READLINK, UNLINK, RMDIR and LINK.</summary>
internal sealed class LinkOperations(FsContext fs, EntryLookup entries)
{
    // Safe: the scratch buffer is longer than MaxTarget.
    public unsafe int ReadLink(FuseRequest r)
    {
        if (!fs.Inodes.TryPin(r.NodeId, out InodePin inode))
        {
            return fs.Synthetic.Is(r.NodeId) ? Fail(Errno.EINVAL) : Fail(Errno.ESTALE);
        }

        using InodePin pinned = inode;
        if (inode.FileType != Libc.S_IFLNK)
        {
            return Fail(Errno.EINVAL);
        }

        byte empty = 0;
        nint n = Libc.readlinkat(inode.Fd, &empty, r.Scratch, FuseNames.MaxTarget);
        return n < 0 ? Failed() : r.Reply(r.Scratch, (int)n);
    }

    // Safe: the name lies in the request's own buffer, with its NUL, until the next request.
    public unsafe int Unlink(FuseRequest r, int flags)
    {
        int error = fs.PinParent(r, 0, out byte* name, out InodePin parent);
        if (error != 0)
        {
            return error;
        }

        using InodePin pinned = parent;
        return Result(Libc.unlinkat(parent.Fd, name, flags));
    }

    // Safe: the name lies in the request's own buffer, with its NUL, until the next request.
    public unsafe int Link(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_link_in link))
        {
            return Fail(Errno.EINVAL);
        }

        int error = fs.PinParent(r, sizeof(fuse_link_in), out byte* name, out InodePin parent);
        if (error != 0)
        {
            return error;
        }

        using InodePin pinnedParent = parent;
        error = fs.PinForChange(link.oldnodeid, out InodePin inode);
        if (error != 0)
        {
            return error;
        }

        using InodePin pinned = inode;
        if (inode.Key.Rights != parent.Key.Rights || !fs.Inodes.Mounts.AreTogether(inode, parent))
        {
            return Fail(Errno.EXDEV);
        }

        error = Link(inode.Fd, parent.Fd, name);
        if (error == Fail(Errno.EXDEV) && inode.MountId != parent.MountId
            && fs.Inodes.Mounts.TryOpenTogether(inode, parent, out int first, out int second))
        {
            error = Link(first, second, name);
            fs.Inodes.Mounts.CloseOpened(first);
            fs.Inodes.Mounts.CloseOpened(second);
        }

        fs.RefreshChanged(inode);
        MarkFolder(inode, parent);
        return entries.ReplyNew(r, parent, name, error);
    }

    /// <summary>Marks the folder in which a device has got a name.</summary>
    public static void MarkFolder(in InodePin inode, in InodePin folder)
    {
        if (inode.FileType is Libc.S_IFCHR or Libc.S_IFBLK)
        {
            DeviceMark.WriteFolder(folder.Fd);
        }
    }

    // Safe: the link has room for any descriptor's number; the name ends in a NUL and stays for the request; it is only read.
    private unsafe int Link(int inode, int parent, byte* name)
    {
        // Following the link in /proc/self/fd leads to the inode itself, also when that is a symbolic link.
        byte* source = stackalloc byte[ProcFd.NameLength];
        ProcFd.Format(inode, source);
        return Result(Libc.linkat(fs.ProcSelfFd.Value, source, parent, name, Libc.AT_SYMLINK_FOLLOW));
    }
}
