using System.Runtime.InteropServices;

namespace MicroVm.VirtioFs.Protocol;

// The structs of linux/fuse.h in its own spelling; tests compare them with the header.
#pragma warning disable CS1591 // fields are documented by linux/fuse.h
#pragma warning disable CS0649 // fields of requests are filled by copying from guest memory

/// <summary>Attributes of an inode.</summary>
public struct fuse_attr
{
    public ulong ino;
    public ulong size;
    public ulong blocks;
    public ulong atime;
    public ulong mtime;
    public ulong ctime;
    public uint atimensec;
    public uint mtimensec;
    public uint ctimensec;
    public uint mode;
    public uint nlink;
    public uint uid;
    public uint gid;
    public uint rdev;
    public uint blksize;
    public uint flags;
}

/// <summary>Sizes of a file system.</summary>
[StructLayout(LayoutKind.Sequential, Size = 80)]
public struct fuse_kstatfs
{
    public ulong blocks;
    public ulong bfree;
    public ulong bavail;
    public ulong files;
    public ulong ffree;
    public uint bsize;
    public uint namelen;
    public uint frsize;
    public uint padding;
}

/// <summary>Answer that names an inode and gives the kernel one more reference to it.</summary>
public struct fuse_entry_out
{
    public ulong nodeid;
    public ulong generation;
    public ulong entry_valid;
    public ulong attr_valid;
    public uint entry_valid_nsec;
    public uint attr_valid_nsec;
    public fuse_attr attr;
}

/// <summary>FORGET: how many references the kernel gives back.</summary>
public struct fuse_forget_in
{
    public ulong nlookup;
}

/// <summary>One record of BATCH_FORGET.</summary>
public struct fuse_forget_one
{
    public ulong nodeid;
    public ulong nlookup;
}

/// <summary>BATCH_FORGET: how many records follow.</summary>
public struct fuse_batch_forget_in
{
    public uint count;
    public uint dummy;
}

/// <summary>GETATTR.</summary>
public struct fuse_getattr_in
{
    public uint getattr_flags;
    public uint dummy;
    public ulong fh;
}

/// <summary>Answer of GETATTR and SETATTR.</summary>
public struct fuse_attr_out
{
    public ulong attr_valid;
    public uint attr_valid_nsec;
    public uint dummy;
    public fuse_attr attr;
}

/// <summary>MKNOD; a name follows.</summary>
public struct fuse_mknod_in
{
    public uint mode;
    public uint rdev;
    public uint umask;
    public uint padding;
}

/// <summary>MKDIR; a name follows.</summary>
public struct fuse_mkdir_in
{
    public uint mode;
    public uint umask;
}

/// <summary>RENAME; two names follow.</summary>
public struct fuse_rename_in
{
    public ulong newdir;
}

/// <summary>RENAME2; two names follow.</summary>
public struct fuse_rename2_in
{
    public ulong newdir;
    public uint flags;
    public uint padding;
}

/// <summary>LINK; a name follows.</summary>
public struct fuse_link_in
{
    public ulong oldnodeid;
}

/// <summary>SETATTR.</summary>
public struct fuse_setattr_in
{
    public uint valid;
    public uint padding;
    public ulong fh;
    public ulong size;
    public ulong lock_owner;
    public ulong atime;
    public ulong mtime;
    public ulong ctime;
    public uint atimensec;
    public uint mtimensec;
    public uint ctimensec;
    public uint mode;
    public uint unused4;
    public uint uid;
    public uint gid;
    public uint unused5;
}

/// <summary>OPEN and OPENDIR.</summary>
public struct fuse_open_in
{
    public uint flags;
    public uint open_flags;
}

/// <summary>CREATE and TMPFILE; a name follows.</summary>
public struct fuse_create_in
{
    public uint flags;
    public uint mode;
    public uint umask;
    public uint open_flags;
}

/// <summary>Answer of OPEN and OPENDIR; behind a fuse_entry_out that of CREATE and TMPFILE.</summary>
public struct fuse_open_out
{
    public ulong fh;
    public uint open_flags;
    public uint padding;
}

/// <summary>POLL.</summary>
public struct fuse_poll_in
{
    public ulong fh;
    public ulong kh;
    public uint flags;
    public uint events;
}

/// <summary>POLL's answer.</summary>
public struct fuse_poll_out
{
    public uint revents;
    public uint padding;
}

/// <summary>RELEASE and RELEASEDIR.</summary>
public struct fuse_release_in
{
    public ulong fh;
    public uint flags;
    public uint release_flags;
    public ulong lock_owner;
}

/// <summary>FLUSH.</summary>
public struct fuse_flush_in
{
    public ulong fh;
    public uint unused;
    public uint padding;
    public ulong lock_owner;
}

/// <summary>A lock of fcntl(2): a range, both ends included, F_RDLCK, F_WRLCK or F_UNLCK, and a holder's process id.</summary>
public struct fuse_file_lock
{
    public ulong start;
    public ulong end;
    public uint type;
    public uint pid;
}

/// <summary>GETLK, SETLK and SETLKW.</summary>
public struct fuse_lk_in
{
    public ulong fh;
    public ulong owner;
    public fuse_file_lock lk;
    public uint lk_flags;
    public uint padding;
}

/// <summary>Answer of GETLK.</summary>
public struct fuse_lk_out
{
    public fuse_file_lock lk;
}

/// <summary>INTERRUPT: which request need not be waited for.</summary>
public struct fuse_interrupt_in
{
    public ulong unique;
}

/// <summary>READ, READDIR and READDIRPLUS.</summary>
public struct fuse_read_in
{
    public ulong fh;
    public ulong offset;
    public uint size;
    public uint read_flags;
    public ulong lock_owner;
    public uint flags;
    public uint padding;
}

/// <summary>WRITE; the data follow.</summary>
public struct fuse_write_in
{
    public ulong fh;
    public ulong offset;
    public uint size;
    public uint write_flags;
    public ulong lock_owner;
    public uint flags;
    public uint padding;
}

/// <summary>Answer of WRITE and COPY_FILE_RANGE.</summary>
public struct fuse_write_out
{
    public uint size;
    public uint padding;
}

/// <summary>Answer of STATFS.</summary>
public struct fuse_statfs_out
{
    public fuse_kstatfs st;
}

/// <summary>FSYNC and FSYNCDIR.</summary>
public struct fuse_fsync_in
{
    public ulong fh;
    public uint fsync_flags;
    public uint padding;
}

/// <summary>SETXATTR; without SETXATTR_EXT requests carry the first FUSE_COMPAT_SETXATTR_IN_SIZE bytes. A name and the value follow.</summary>
public struct fuse_setxattr_in
{
    public uint size;
    public uint flags;
    public uint setxattr_flags;
    public uint padding;
}

/// <summary>GETXATTR (a name follows) and LISTXATTR.</summary>
public struct fuse_getxattr_in
{
    public uint size;
    public uint padding;
}

/// <summary>Answer of GETXATTR and LISTXATTR when only the size was asked for.</summary>
public struct fuse_getxattr_out
{
    public uint size;
    public uint padding;
}

/// <summary>INIT; old kernels send the first 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential, Size = 64)]
public struct fuse_init_in
{
    public uint major;
    public uint minor;
    public uint max_readahead;
    public uint flags;
    public uint flags2;
}

/// <summary>Answer of INIT.</summary>
[StructLayout(LayoutKind.Sequential, Size = 64)]
public struct fuse_init_out
{
    public uint major;
    public uint minor;
    public uint max_readahead;
    public uint flags;
    public ushort max_background;
    public ushort congestion_threshold;
    public uint max_write;
    public uint time_gran;
    public ushort max_pages;
    public ushort map_alignment;
    public uint flags2;
}

/// <summary>SETUPMAPPING: a part of a file and the place in the window where it is to be.</summary>
public struct fuse_setupmapping_in
{
    public ulong fh;
    public ulong foffset;
    public ulong len;
    public ulong flags;
    public ulong moffset;
}

/// <summary>REMOVEMAPPING: how many records follow.</summary>
public struct fuse_removemapping_in
{
    public uint count;
}

/// <summary>One record of REMOVEMAPPING.</summary>
public struct fuse_removemapping_one
{
    public ulong moffset;
    public ulong len;
}

/// <summary>FALLOCATE.</summary>
public struct fuse_fallocate_in
{
    public ulong fh;
    public ulong offset;
    public ulong length;
    public uint mode;
    public uint padding;
}

/// <summary>IOCTL; what the argument points to follows.</summary>
public struct fuse_ioctl_in
{
    public ulong fh;
    public uint flags;
    public uint cmd;
    public ulong arg;
    public uint in_size;
    public uint out_size;
}

/// <summary>Answer of IOCTL; what the argument points to follows.</summary>
public struct fuse_ioctl_out
{
    public int result;
    public uint flags;
    public uint in_iovs;
    public uint out_iovs;
}

/// <summary>Starts every request.</summary>
public struct fuse_in_header
{
    public uint len;
    public uint opcode;
    public ulong unique;
    public ulong nodeid;
    public uint uid;
    public uint gid;
    public uint pid;
    public ushort total_extlen;
    public ushort padding;
}

/// <summary>Starts every answer.</summary>
public struct fuse_out_header
{
    public uint len;
    public int error;
    public ulong unique;
}

/// <summary>A record of READDIR without its name, which follows.</summary>
public struct fuse_dirent
{
    public ulong ino;
    public ulong off;
    public uint namelen;
    public uint type;
}

/// <summary>LSEEK.</summary>
public struct fuse_lseek_in
{
    public ulong fh;
    public ulong offset;
    public uint whence;
    public uint padding;
}

/// <summary>Answer of LSEEK.</summary>
public struct fuse_lseek_out
{
    public ulong offset;
}

/// <summary>COPY_FILE_RANGE.</summary>
public struct fuse_copy_file_range_in
{
    public ulong fh_in;
    public ulong off_in;
    public ulong nodeid_out;
    public ulong fh_out;
    public ulong off_out;
    public ulong len;
    public ulong flags;
}

/// <summary>WATCH, of this project's guest kernel.</summary>
public struct fuse_watch_in
{
    /// <summary>IN_* of inotify(7) that are to be told of the node; 0 for none.</summary>
    public uint mask;
    public uint padding;
}

/// <summary>A record of EVENTS' answer without the name, which follows and ends at a multiple of 8 bytes.</summary>
public struct fuse_event
{
    public ulong nodeid;
    public uint mask;
    public uint cookie;
    public uint namelen;
    public uint padding;
}
