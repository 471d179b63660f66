using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Exports;
using MicroVm.VirtioFs.Inodes;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VmmControl;

namespace MicroVm.VirtioFs.Operations;

/// <summary>An inode's attributes as the guest sees them.</summary>
internal sealed class GuestAttributes(FsContext fs)
{
    /// <summary>All attributes but the flags.</summary>
    /// <param name="stat">What the host says.</param>
    /// <param name="home">The guest's file system: <see cref="InodeKey.Home"/>.</param>
    /// <param name="attr">The guest's.</param>
    public void Fill(in Libc.statx_t stat, int home, out fuse_attr attr) => attr = new fuse_attr
    {
        ino = NumberOf(home, stat),
        size = stat.stx_size,
        blocks = stat.stx_blocks,
        atime = (ulong)stat.stx_atime.tv_sec,
        mtime = (ulong)stat.stx_mtime.tv_sec,
        ctime = (ulong)stat.stx_ctime.tv_sec,
        atimensec = stat.stx_atime.tv_nsec,
        mtimensec = stat.stx_mtime.tv_nsec,
        ctimensec = stat.stx_ctime.tv_nsec,
        mode = stat.stx_mode,
        nlink = stat.stx_nlink,
        uid = stat.stx_uid,
        gid = stat.stx_gid,
        rdev = EncodeDevice(stat.stx_rdev_major, stat.stx_rdev_minor),
        blksize = stat.stx_blksize,
    };

    /// <summary>The inode number that the guest sees.</summary>
    /// <param name="home">The guest's file system: <see cref="InodeKey.Home"/>.</param>
    /// <param name="stat">The inode.</param>
    public ulong NumberOf(int home, in Libc.statx_t stat) => NumberOf(home, InodeKey.DeviceOf(stat), stat.stx_ino);

    /// <summary>The same of an inode of which only device and number are known.</summary>
    public ulong NumberOf(int home, ulong device, ulong number) => InodeNumbers.Map(fs.Exports.DeviceOf(home), device, number);

    /// <summary>
    /// Whether a file's shared mappings are the host's pages. Of a tree that only this guest changes, only mappings that can be
    /// written to: those outlive the VM then, and all others are as fast as the guest's cache.
    /// </summary>
    public uint MappingFlags(ExportRules rules, uint mode) =>
        !fs.Session.MapsFiles || (mode & Libc.S_IFMT) != Libc.S_IFREG ? 0
        : rules.Cache == FsCache.Exclusive ? Fuse.FUSE_ATTR_DAX | GuestKernelFlags.DaxWhenWritable
        : Fuse.FUSE_ATTR_DAX;

    /// <summary>Whether the guest opens a FIFO here.</summary>
    public uint FifoFlags(ulong node, uint mode) =>
        fs.Session.OpensFifos && (mode & Libc.S_IFMT) == Libc.S_IFIFO && fs.SharesSockets(node) ? GuestKernelFlags.FifoOfHost : 0;

    private static uint EncodeDevice(uint major, uint minor) => (minor & 0xFF) | (major << 8) | ((minor & ~0xFFu) << 12);
}
