namespace MicroVm.VirtioFs.Protocol;

/// <summary>Constants of linux/fuse.h, in its spelling, that this server uses.</summary>
public static class Fuse
{
#pragma warning disable CS1591 // named and documented by linux/fuse.h
    public const ulong FUSE_ROOT_ID = 1;
    public const uint FUSE_KERNEL_VERSION = 7;
    public const uint FATTR_MODE = 1;
    public const uint FATTR_UID = 2;
    public const uint FATTR_GID = 4;
    public const uint FATTR_SIZE = 8;
    public const uint FATTR_ATIME = 0x10;
    public const uint FATTR_MTIME = 0x20;
    public const uint FATTR_FH = 0x40;
    public const uint FATTR_ATIME_NOW = 0x80;
    public const uint FATTR_MTIME_NOW = 0x100;
    public const uint FATTR_KILL_SUIDGID = 0x800;
    public const uint FOPEN_DIRECT_IO = 1;
    public const uint FOPEN_KEEP_CACHE = 2;
    public const uint FOPEN_CACHE_DIR = 8;
    public const uint FOPEN_NOFLUSH = 0x20;
    public const uint FUSE_ASYNC_READ = 1;
    public const uint FUSE_POSIX_LOCKS = 2;
    public const uint FUSE_ATOMIC_O_TRUNC = 8;
    public const uint FUSE_BIG_WRITES = 0x20;
    public const uint FUSE_DONT_MASK = 0x40;
    public const uint FUSE_FLOCK_LOCKS = 0x400;
    public const uint FUSE_AUTO_INVAL_DATA = 0x1000;
    public const uint FUSE_DO_READDIRPLUS = 0x2000;
    public const uint FUSE_READDIRPLUS_AUTO = 0x4000;
    public const uint FUSE_ASYNC_DIO = 0x8000;
    public const uint FUSE_PARALLEL_DIROPS = 0x40000;
    public const uint FUSE_POSIX_ACL = 0x100000;
    public const uint FUSE_MAX_PAGES = 0x400000;
    public const uint FUSE_CACHE_SYMLINKS = 0x800000;
    public const uint FUSE_MAP_ALIGNMENT = 0x4000000;
    public const uint FUSE_HANDLE_KILLPRIV_V2 = 0x10000000;
    public const uint FUSE_SUBMOUNTS = 0x8000000;
    public const uint FUSE_SETXATTR_EXT = 0x20000000;
    public const uint FUSE_INIT_EXT = 0x40000000;
    public const uint FUSE_ATTR_SUBMOUNT = 1;
    public const ulong FUSE_HAS_INODE_DAX = 1ul << 33;
    public const uint FUSE_ATTR_DAX = 2;
    public const uint FUSE_SETUPMAPPING_FLAG_WRITE = 1;
    public const uint FUSE_SETUPMAPPING_FLAG_READ = 2;
    public const uint FUSE_RELEASE_FLUSH = 1;
    public const uint FUSE_RELEASE_FLOCK_UNLOCK = 2;
    public const uint FUSE_LK_FLOCK = 1;
    public const uint FUSE_GETATTR_FH = 1;
    public const uint FUSE_POLL_SCHEDULE_NOTIFY = 1;
    public const uint FUSE_WRITE_CACHE = 1;
    public const uint FUSE_WRITE_KILL_SUIDGID = 4;
    public const uint FUSE_FSYNC_FDATASYNC = 1;
    public const uint FUSE_OPEN_KILL_SUIDGID = 1;
    public const uint FUSE_SETXATTR_ACL_KILL_SGID = 1;
    public const int FUSE_COMPAT_SETXATTR_IN_SIZE = 8;
    public const int FUSE_COMPAT_INIT_OUT_SIZE = 8;
    public const int FUSE_COMPAT_22_INIT_OUT_SIZE = 24;
#pragma warning restore CS1591
}
