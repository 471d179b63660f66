using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Handles;
using MicroVm.VirtioFs.Inodes;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;
using static MicroVm.VirtioFs.Protocol.FuseResult;

namespace MicroVm.VirtioFs.Operations;

/// <summary>IOCTL: the flags and extended attributes of files that lsattr(1) and chattr(1) know, and nothing else.</summary>
internal sealed class IoctlOperations(FsContext fs)
{
    private const int FsxattrLength = 28; // struct fsxattr of linux/fs.h

    // Safe: the argument has room for the longest that ArgumentLength allows.
    public unsafe int Ioctl(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_ioctl_in request))
        {
            return Fail(Errno.EINVAL);
        }

        int length = ArgumentLength(request.cmd);
        if (length == 0 || r.NodeId == Fuse.FUSE_ROOT_ID)
        {
            return Fail(Errno.ENOTTY);
        }

        bool sets = request.cmd is Libc.FS_IOC_SETFLAGS or Libc.FS_IOC_FSSETXATTR;
        byte* argument = stackalloc byte[FsxattrLength];
        new Span<byte>(argument, FsxattrLength).Clear();
        if (sets && r.Read((ulong)sizeof(fuse_ioctl_in), argument, length) != length)
        {
            return Fail(Errno.EINVAL);
        }

        if (!fs.Handles.TryPin(request.fh, r.NodeId, HandleKind.File, out HandlePin handle)
            && !fs.Handles.TryPin(request.fh, r.NodeId, HandleKind.Directory, out handle))
        {
            return Fail(Errno.EBADF);
        }

        using HandlePin pinned = handle;
        if (sets)
        {
            int error = fs.PinForChange(r.NodeId, out InodePin inode);
            inode.Dispose();
            if (error != 0)
            {
                return error;
            }
        }

        if (Libc.ioctl(handle.Fd, request.cmd, argument) != 0)
        {
            return Failed();
        }

        int answered = sets ? 0 : (int)Math.Min(request.out_size, (uint)length);
        return r.Write(0, default(fuse_ioctl_out)) && r.Write((ulong)sizeof(fuse_ioctl_out), argument, answered)
            ? sizeof(fuse_ioctl_out) + answered
            : Fail(Errno.EINVAL);
    }

    /// <summary>Length of what an ioctl's argument points to; 0: it is not carried out. The seccomp filter has the same list.</summary>
    private static int ArgumentLength(uint command) => command switch
    {
        Libc.FS_IOC_GETFLAGS or Libc.FS_IOC_SETFLAGS => sizeof(uint), // an int, whatever the number says
        Libc.FS_IOC_FSGETXATTR or Libc.FS_IOC_FSSETXATTR => FsxattrLength,
        _ => 0,
    };
}
