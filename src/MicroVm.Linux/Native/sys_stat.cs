using System.Runtime.InteropServices;

namespace MicroVm.Linux.Native;

public static unsafe partial class Libc
{
#pragma warning disable CS1591 // named and documented by sys/stat.h and linux/stat.h
    public const uint S_IFMT = 0xF000;
    public const uint S_IFSOCK = 0xC000;
    public const uint S_IFLNK = 0xA000;
    public const uint S_IFREG = 0x8000;
    public const uint S_IFBLK = 0x6000;
    public const uint S_IFDIR = 0x4000;
    public const uint S_IFCHR = 0x2000;
    public const uint S_IFIFO = 0x1000;
    public const uint S_ISUID = 0x800;
    public const uint S_ISGID = 0x400;
    public const uint S_IXGRP = 8;
    public const uint S_ISVTX = 0x200;

    public const uint STATX_TYPE = 1;
    public const uint STATX_NLINK = 0x4;
    public const uint STATX_SIZE = 0x200;
    public const uint STATX_MODE = 2;
    public const uint STATX_GID = 0x10;
    public const uint STATX_INO = 0x100;
    public const uint STATX_BASIC_STATS = 0x7FF;
    public const uint STATX_BTIME = 0x800;
    public const uint STATX_MNT_ID = 0x1000;
    public const int AT_STATX_SYNC_AS_STAT = 0;
    public const int AT_STATX_FORCE_SYNC = 0x2000;
    public const int AT_STATX_DONT_SYNC = 0x4000;

    public const long UTIME_NOW = 0x3FFFFFFF;
    public const long UTIME_OMIT = 0x3FFFFFFE;

    /// <summary>A time of statx(2).</summary>
    public struct statx_timestamp
    {
        public long tv_sec;
        public uint tv_nsec;
        public int __reserved;
    }

    /// <summary>statx(2)'s answer (linux/stat.h).</summary>
    [StructLayout(LayoutKind.Sequential, Size = 256)]
    public struct statx_t
    {
        public uint stx_mask;
        public uint stx_blksize;
        public ulong stx_attributes;
        public uint stx_nlink;
        public uint stx_uid;
        public uint stx_gid;
        public ushort stx_mode;
        public ushort __spare0;
        public ulong stx_ino;
        public ulong stx_size;
        public ulong stx_blocks;
        public ulong stx_attributes_mask;
        public statx_timestamp stx_atime;
        public statx_timestamp stx_btime;
        public statx_timestamp stx_ctime;
        public statx_timestamp stx_mtime;
        public uint stx_rdev_major;
        public uint stx_rdev_minor;
        public uint stx_dev_major;
        public uint stx_dev_minor;
        public ulong stx_mnt_id;
    }

    /// <summary>A time of utimensat(2) and others (bits/types/struct_timespec.h).</summary>
    public struct timespec
    {
        public long tv_sec;
        public long tv_nsec;
    }

    [LibraryImport("libc", SetLastError = true)]
    public static partial int fchmod(int fd, uint mode);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int statx(int dirfd, byte* pathname, int flags, uint mask, statx_t* buf);

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    public static partial int mkdir(string pathname, uint mode);

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    public static partial int rmdir(string pathname);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int mkdirat(int dirfd, byte* pathname, uint mode);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int mknodat(int dirfd, byte* pathname, uint mode, ulong dev);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int fchmodat(int dirfd, byte* pathname, uint mode, int flags);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int utimensat(int dirfd, byte* pathname, timespec* times, int flags);

    [LibraryImport("libc")]
    public static partial uint umask(uint mask);
#pragma warning restore CS1591
}
