using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.HostFiles;
using MicroVm.VirtioFs.Inodes;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;
using static MicroVm.VirtioFs.Protocol.FuseResult;

namespace MicroVm.VirtioFs.Operations;

/// <summary>Makes regular files as the guest's user.</summary>
internal sealed class FileMaker(FsContext fs, SetIdBits setId)
{
    /// <summary>Makes a file as the guest's user; reserves a handle for its descriptor.</summary>
    // Safe: the name is passed on, not followed.
    public unsafe int CreateNew(FuseRequest r, in InodePin parent, byte* name, int flags, in fuse_create_in create, out int fd)
    {
        fd = -1;
        if (!fs.Handles.TryReserve())
        {
            return Fail(Errno.ENFILE);
        }

        r.Credentials.SetUmask(create.umask);
        int error = r.Credentials.Enter(r.Header.uid, r.Header.gid);
        if (error == 0)
        {
            fd = HostInode.OpenBeneath(parent.Fd, name, flags, setId.AllowedMode(create.mode & 0xFFF, Libc.S_IFREG));
            error = fd < 0 ? Failed() : 0;
            r.Credentials.Leave(r.Header.uid, r.Header.gid);
        }

        if (error != 0)
        {
            fs.Handles.Release();
            return error;
        }

        setId.AfterCreate(fd, create);
        return 0;
    }
}
