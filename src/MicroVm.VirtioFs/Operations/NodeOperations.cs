using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.HostFiles;
using MicroVm.VirtioFs.Inodes;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;
using static MicroVm.VirtioFs.Protocol.FuseResult;

namespace MicroVm.VirtioFs.Operations;

/// <summary>SYMLINK, MKNOD and MKDIR: making what is not opened at once.</summary>
internal sealed class NodeOperations(FsContext fs, EntryLookup entries, FileMaker maker, SetIdBits setId)
{
    // Safe: the name lies in the request's own buffer, with its NUL, until the next request.
    public unsafe int Symlink(FuseRequest r)
    {
        int error = r.ReadStrings(0, 2, out byte* name, out int length, out byte* target, out int targetLength);
        error = error != 0 ? error : FuseNames.CheckComponent(new ReadOnlySpan<byte>(name, length));
        if (error == 0 && targetLength is 0 or >= FuseNames.MaxTarget)
        {
            error = Fail(targetLength == 0 ? Errno.ENOENT : Errno.ENAMETOOLONG);
        }

        if (error != 0)
        {
            return error;
        }

        error = fs.PinForChange(r.NodeId, out InodePin parent);
        if (error != 0)
        {
            return error;
        }

        using InodePin pinned = parent;
        return MakeEntry(r, parent, name, Libc.S_IFLNK, target);
    }

    /// <summary>
    /// A device is made as a marked file, which is none to the host. The exception is the character device 0/0, which overlayfs
    /// uses as the mark of a deleted file and which opens nothing: the host's kernel lets everybody make it.
    /// </summary>
    // Safe: the name lies in the request's own buffer, with its NUL, until the next request.
    public unsafe int MakeNode(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_mknod_in node))
        {
            return Fail(Errno.EINVAL);
        }

        uint type = node.mode & Libc.S_IFMT;
        switch (type)
        {
            case 0 or Libc.S_IFREG or Libc.S_IFIFO or Libc.S_IFSOCK:
            case Libc.S_IFCHR when node.rdev == 0:
                break;
            case Libc.S_IFCHR or Libc.S_IFBLK:
                break;
            default:
                return Fail(Errno.EINVAL);
        }

        int error = fs.PinParent(r, sizeof(fuse_mknod_in), out byte* name, out InodePin parent);
        if (error != 0)
        {
            return error;
        }

        using InodePin pinned = parent;
        r.Credentials.SetUmask(node.umask);
        return type == Libc.S_IFBLK || (type == Libc.S_IFCHR && node.rdev != 0) ? MakeDevice(r, parent, name, node)
            : type == Libc.S_IFSOCK && fs.Sockets is not null && fs.SharesSockets(parent.NodeId) ? MakeSocket(r, parent, name, node)
            : MakeEntry(r, parent, name, type | setId.AllowedMode(node.mode & 0xFFF, type));
    }

    // Safe: the name lies in the request's own buffer, with its NUL, until the next request.
    public unsafe int MakeDirectory(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_mkdir_in make))
        {
            return Fail(Errno.EINVAL);
        }

        int error = fs.PinParent(r, sizeof(fuse_mkdir_in), out byte* name, out InodePin parent);
        if (error != 0)
        {
            return error;
        }

        using InodePin pinned = parent;
        r.Credentials.SetUmask(make.umask);
        return MakeEntry(r, parent, name, Libc.S_IFDIR | (make.mode & 0xFFF));
    }

    /// <summary>
    /// A socket of the host is bound to the name, so that the host's processes can connect to it; where none is lent now, the
    /// name is the guest's alone.
    /// </summary>
    // Safe: the name is passed on, not followed.
    private unsafe int MakeSocket(FuseRequest r, in InodePin parent, byte* name, in fuse_mknod_in node)
    {
        if (!fs.Sockets!.TryTake(parent.Fd, name))
        {
            return MakeEntry(r, parent, name, Libc.S_IFSOCK | (node.mode & 0xFFF));
        }

        // The kernel makes the file of an unbound socket's own mode, 0777.
        r.Credentials.SetUmask((node.umask | ~node.mode) & 0x1FF);
        int error = r.Credentials.Enter(r.Header.uid, r.Header.gid);
        if (error != 0)
        {
            return error;
        }

        error = fs.Sockets.Bind(parent.Fd, name);
        r.Credentials.Leave(r.Header.uid, r.Header.gid);
        if (error != 0)
        {
            return error;
        }

        error = entries.LookupChild(parent, fs.Exports.RulesOf(parent.Key), name, out fuse_entry_out entry);
        fs.Sockets.Announce(parent.Fd, name, error == 0 ? entry.nodeid : 0);
        return error != 0 ? error : entries.Reply(r, entry);
    }

    // Safe: the name ends in a NUL and stays for the request; it is only read.
    private unsafe int MakeDevice(FuseRequest r, in InodePin parent, byte* name, in fuse_mknod_in node)
    {
        fuse_create_in create = new() { mode = DeviceMark.HostMode, umask = node.umask };
        int error = maker.CreateNew(r, parent, name, Libc.O_WRONLY | Libc.O_CREAT | Libc.O_EXCL, create, out int fd);
        if (error != 0)
        {
            return error;
        }

        // A file system without such attributes refuses a node as it would without the right to make one.
        error = Result(DeviceMark.Write(fd, node.mode & Libc.S_IFMT, node.mode & 0xFFF & ~node.umask, node.rdev));
        error = error == Fail(Errno.EOPNOTSUPP) ? Fail(Errno.EPERM) : error;
        _ = Libc.close(fd);
        fs.Handles.Release();
        if (error != 0)
        {
            _ = Libc.unlinkat(parent.Fd, name, 0);
        }
        else
        {
            DeviceMark.WriteFolder(parent.Fd);
        }

        return entries.ReplyNew(r, parent, name, error);
    }

    /// <summary>Makes what <paramref name="mode"/> says, as the guest's user, and answers with it.</summary>
    // Safe: the name ends in a NUL and stays for the request; it is only read.
    private unsafe int MakeEntry(FuseRequest r, in InodePin parent, byte* name, uint mode, byte* target = null)
    {
        int error = r.Credentials.Enter(r.Header.uid, r.Header.gid);
        if (error == 0)
        {
            error = Result((mode & Libc.S_IFMT) switch
            {
                Libc.S_IFLNK => Libc.symlinkat(target, parent.Fd, name),
                Libc.S_IFDIR => Libc.mkdirat(parent.Fd, name, mode & 0xFFF),
                _ => Libc.mknodat(parent.Fd, name, mode, 0),
            });
            r.Credentials.Leave(r.Header.uid, r.Header.gid);
        }

        return entries.ReplyNew(r, parent, name, error);
    }
}
