using MicroVm.Linux.Native;
using MicroVm.Vmm.Fs.Protocol;

namespace MicroVm.Vmm.Fs;

/// <content>
/// The folders of the synthesised root directory, one for each host file system that has an export. The guest's kernel mounts
/// each as a file system of its own, so that st_dev differs in the guest where it differs on the host.
/// </content>
/// <remarks>
/// One for each file system and not for each export: what is one inode on the host must be in one file system of the guest.
/// Their node ids have a generation that no inode gets, and are never forgotten.
/// </remarks>
internal sealed unsafe partial class FuseServer
{
    private const ulong DeviceNodes = (ulong)uint.MaxValue << 32;
    private const ulong DeviceValidSeconds = 86400; // a device's folder is never removed
    private bool _hasSubmounts;

    private bool IsSynthesised(ulong node) => node == Fuse.FUSE_ROOT_ID
        || (node >= DeviceNodes && node - DeviceNodes < (ulong)_exports.DeviceCount);

    /// <summary>The export is an entry of a synthesised directory: of its device's, and of the root.</summary>
    private static bool IsIn(Export export, ulong node) => node == Fuse.FUSE_ROOT_ID || node == DeviceNodes + (uint)export.Device;

    private fuse_entry_out DeviceEntry(int device)
    {
        fuse_entry_out entry = new()
        {
            nodeid = DeviceNodes + (uint)device,
            entry_valid = DeviceValidSeconds,
            attr_valid = DeviceValidSeconds,
        };
        RootAttributes(out entry.attr);
        entry.attr.flags = _hasSubmounts ? Fuse.FUSE_ATTR_SUBMOUNT : 0;
        return entry;
    }

    /// <param name="home">The guest's file system: <see cref="InodeKey.Home"/>.</param>
    /// <param name="stat">The inode.</param>
    private ulong NumberOf(int home, in Libc.statx_t stat) => NumberOf(home, InodeKey.DeviceOf(stat), stat.stx_ino);

    private ulong NumberOf(int home, ulong device, ulong number) => InodeNumbers.Map(_exports.DeviceOf(home), device, number);
}
