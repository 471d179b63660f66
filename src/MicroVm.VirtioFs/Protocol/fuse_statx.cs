using System.Runtime.InteropServices;

namespace MicroVm.VirtioFs.Protocol;

// FUSE_STATX came with protocol 7.39, which the headers of some build hosts do not have yet.
#pragma warning disable CS1591 // fields are documented by linux/fuse.h
#pragma warning disable CS0649 // fields of requests are filled by copying from guest memory

/// <summary>A time in <see cref="fuse_statx"/>.</summary>
public struct fuse_sx_time
{
    public long tv_sec;
    public uint tv_nsec;
    public int __reserved;
}

/// <summary>Attributes of an inode in statx(2)'s form.</summary>
[StructLayout(LayoutKind.Sequential, Size = 256)]
public struct fuse_statx
{
    public uint mask;
    public uint blksize;
    public ulong attributes;
    public uint nlink;
    public uint uid;
    public uint gid;
    public ushort mode;
    public ushort __spare0;
    public ulong ino;
    public ulong size;
    public ulong blocks;
    public ulong attributes_mask;
    public fuse_sx_time atime;
    public fuse_sx_time btime;
    public fuse_sx_time ctime;
    public fuse_sx_time mtime;
    public uint rdev_major;
    public uint rdev_minor;
    public uint dev_major;
    public uint dev_minor;
}

/// <summary>STATX.</summary>
public struct fuse_statx_in
{
    public uint getattr_flags;
    public uint reserved;
    public ulong fh;
    public uint sx_flags;
    public uint sx_mask;
}

/// <summary>Answer of STATX.</summary>
public struct fuse_statx_out
{
    public ulong attr_valid;
    public uint attr_valid_nsec;
    public uint flags;
    public ulong spare0;
    public ulong spare1;
    public fuse_statx stat;
}
