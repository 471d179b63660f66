using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Oci.Config;

namespace MicroVm.Sandbox.Plan;

/// <summary>
/// The tmpfs of the host that callers (Podman, Kubernetes) bind to /dev/shm, for containers to share. Containers of other VMs
/// share no memory, so the container gets a tmpfs of the guest of the same size, at memory's speed.
/// </summary>
internal static unsafe class SharedMemory
{
    private const long TMPFS_MAGIC = 0x01021994;

    /// <summary>Bytes of the tmpfs that stands in for a bind; null for any other mount.</summary>
    internal static ulong? Size(Mount mount, string destination, string bundle)
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
        return Libc.fstatfs(source.Value, &stat) == 0 && stat.f_type == TMPFS_MAGIC ? (ulong)stat.f_blocks * (ulong)stat.f_bsize : null;
    }
}
