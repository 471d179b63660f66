using System.Globalization;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Oci.Config;

namespace MicroVm.Sandbox.Plan;

/// <summary>
/// The tmpfs of the host that callers (Podman, Kubernetes) bind to /dev/shm, for containers to share. VMs share no memory, so a tmpfs of
/// the guest of the same size and owner stands for it, at memory's speed, for all containers of one VM that are given the same one.
/// </summary>
internal static unsafe class SharedMemory
{
    /// <summary>The tmpfs that is bound: options of one like it, and a name that no other has on the host; null for any other mount.</summary>
    internal static (string Data, string Name)? Find(Mount mount, string destination, string bundle)
    {
        if (destination != "/dev/shm" || !MountPlan.IsBind(mount) || string.IsNullOrEmpty(mount.Source))
        {
            return null;
        }

        int fd = Libc.open(Path.Combine(bundle, mount.Source), Libc.O_PATH | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0);
        if (fd < 0)
        {
            return null;
        }

        using SafeFd source = new(fd);
        Libc.statfs_t stat;
        Libc.statx_t status = Vm.FileType.Describe(source, mount.Source);
        return Libc.fstatfs(source.Value, &stat) == 0 && stat.f_type == Libc.TMPFS_MAGIC
            ? (Options(status, (ulong)stat.f_blocks * (ulong)stat.f_bsize), string.Create(CultureInfo.InvariantCulture, $"{status.stx_dev_major}:{status.stx_dev_minor}.{status.stx_ino}"))
            : null;
    }

    private static string Options(in Libc.statx_t status, ulong size)
    {
        string data = string.Create(CultureInfo.InvariantCulture, $"mode=1777,size={size}");

        // A caller that maps users gives it to the container's root.
        return (status.stx_uid, status.stx_gid) == (0, 0) ? data : string.Create(CultureInfo.InvariantCulture, $"{data},uid={status.stx_uid},gid={status.stx_gid}");
    }
}
