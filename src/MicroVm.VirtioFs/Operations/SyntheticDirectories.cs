using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Exports;
using MicroVm.VirtioFs.Inodes;
using MicroVm.VirtioFs.Protocol;

namespace MicroVm.VirtioFs.Operations;

/// <summary>
/// The root directory, which is synthetic, and its folders, one for each host file system that has an export. The guest's kernel mounts
/// each as a file system of its own, so that st_dev differs in the guest where it differs on the host.
/// </summary>
/// <remarks>
/// One for each file system and not for each export: what is one inode on the host must be in one file system of the guest.
/// Their node ids have a generation that no inode gets, and are never forgotten.
/// </remarks>
internal sealed class SyntheticDirectories(FsContext fs)
{
    /// <summary>Their mode: everybody may list and search them.</summary>
    public const uint Mode = Libc.S_IFDIR | 0x16D; // 0555

    private const ulong DeviceNodes = (ulong)uint.MaxValue << 32;
    private const ulong DeviceValidSeconds = 86400; // a device's folder is never removed

    /// <summary>The node is one of them.</summary>
    public bool Is(ulong node) => node == Fuse.FUSE_ROOT_ID
        || (node >= DeviceNodes && node - DeviceNodes < (ulong)fs.Exports.DeviceCount);

    /// <summary>The export is an entry of a synthetic directory: of its device's, and of the root.</summary>
    public static bool IsIn(Export export, ulong node) => node == Fuse.FUSE_ROOT_ID || node == DeviceNodes + (uint)export.Device;

    /// <summary>What LOOKUP answers of a host file system's folder.</summary>
    public fuse_entry_out DeviceEntry(int device)
    {
        fuse_entry_out entry = new()
        {
            nodeid = DeviceNodes + (uint)device,
            entry_valid = DeviceValidSeconds,
            attr_valid = DeviceValidSeconds,
        };
        Attributes(out entry.attr);
        entry.attr.flags = fs.Session.HasSubmounts ? Fuse.FUSE_ATTR_SUBMOUNT : 0;
        return entry;
    }

    /// <summary>The attributes of any of them.</summary>
    public static void Attributes(out fuse_attr attr) => attr = new fuse_attr
    {
        ino = InodeNumbers.Root,
        mode = Mode,
        nlink = 2,
        blksize = 4096,
    };
}
