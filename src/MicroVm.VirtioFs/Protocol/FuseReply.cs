namespace MicroVm.VirtioFs.Protocol;

/// <summary>The fixed part of answers.</summary>
internal static class FuseReply
{
    /// <summary>Length of the struct that an operation answers with, when it has a fixed one.</summary>
    // Safe: the size of a struct is asked for, nothing is followed.
    public static unsafe int LengthOf(FuseOpcode opcode) => opcode switch
    {
        FuseOpcode.FUSE_LOOKUP or FuseOpcode.FUSE_SYMLINK or FuseOpcode.FUSE_MKNOD or FuseOpcode.FUSE_MKDIR
            or FuseOpcode.FUSE_LINK => sizeof(fuse_entry_out),
        FuseOpcode.FUSE_CREATE or FuseOpcode.FUSE_TMPFILE => sizeof(fuse_entry_out) + sizeof(fuse_open_out),
        FuseOpcode.FUSE_GETATTR or FuseOpcode.FUSE_SETATTR => sizeof(fuse_attr_out),
        FuseOpcode.FUSE_OPEN or FuseOpcode.FUSE_OPENDIR or FuseOpcode.FUSE_OPEN_FIFO => sizeof(fuse_open_out),
        FuseOpcode.FUSE_POLL => sizeof(fuse_poll_out),
        FuseOpcode.FUSE_WRITE or FuseOpcode.FUSE_COPY_FILE_RANGE => sizeof(fuse_write_out),
        FuseOpcode.FUSE_STATFS => sizeof(fuse_statfs_out),
        FuseOpcode.FUSE_LSEEK => sizeof(fuse_lseek_out),
        FuseOpcode.FUSE_STATX => sizeof(fuse_statx_out),
        FuseOpcode.FUSE_GETLK => sizeof(fuse_lk_out),
        FuseOpcode.FUSE_IOCTL => sizeof(fuse_ioctl_out),
        FuseOpcode.FUSE_INIT => Fuse.FUSE_COMPAT_INIT_OUT_SIZE,
        _ => 0,
    };
}
