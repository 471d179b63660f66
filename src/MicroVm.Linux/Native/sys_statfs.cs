using System.Runtime.InteropServices;

namespace MicroVm.Linux.Native;

public static unsafe partial class Libc
{
#pragma warning disable CS1591 // named and documented by sys/statfs.h
    public const long PROC_SUPER_MAGIC = 0x9fa0;
    public const long OVERLAYFS_SUPER_MAGIC = 0x794c7630;
    public const long TMPFS_MAGIC = 0x01021994;
    public const long ST_RDONLY = 1;
    public const long SYSFS_MAGIC = 0x62656572;
    public const long CGROUP_SUPER_MAGIC = 0x27e0eb;
    public const long CGROUP2_SUPER_MAGIC = 0x63677270;
    public const long DEBUGFS_MAGIC = 0x64626720;
    public const long TRACEFS_MAGIC = 0x74726163;
    public const long SECURITYFS_MAGIC = 0x73636673;
    public const long BPF_FS_MAGIC = 0xcafe4a11;
    public const long FUSE_SUPER_MAGIC = 0x65735546;

    /// <summary>fstatfs(2)'s answer (bits/statfs.h).</summary>
    [StructLayout(LayoutKind.Sequential, Size = 120)]
    public struct statfs_t
    {
        public long f_type;
        public long f_bsize;
        public ulong f_blocks;
        public ulong f_bfree;
        public ulong f_bavail;
        public ulong f_files;
        public ulong f_ffree;
        public ulong f_fsid;
        public long f_namelen;
        public long f_frsize;
        public long f_flags;
    }

    [LibraryImport("libc", SetLastError = true)]
    public static partial int fstatfs(int fd, statfs_t* buf);
#pragma warning restore CS1591
}
