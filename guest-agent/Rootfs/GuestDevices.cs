using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;

namespace MicroVm.Agent.Rootfs;

/// <summary>The devices that the guest's kernel has drivers for, by the nodes of its devtmpfs; read when first asked for.</summary>
/// <param name="path">Where devtmpfs is mounted, or can be.</param>
public sealed unsafe class GuestDevices(string path)
{
    private const int MaxDepth = 4;
    private const uint TmpfsMagic = 0x01021994;
    private const uint MemoryMajor = 1, TerminalMajor = 5, PtySlaveMajor = 136;

    // null, zero, full, random, urandom; the others of their driver (mem, port, kmsg) are a matter of configuration.
    private static readonly uint[] MemoryMinors = [3, 5, 7, 8, 9];

    private HashSet<(uint Type, uint Major, uint Minor)>? _known;

    /// <summary>Whether opening a node of this device reaches a driver. What every kernel has is not looked for.</summary>
    public bool Has(Device device)
    {
        ArgumentNullException.ThrowIfNull(device);
        uint type = device.Type == 'b' ? Libc.S_IFBLK : Libc.S_IFCHR;
        return (type == Libc.S_IFCHR && (device.Major is TerminalMajor or PtySlaveMajor || (device.Major == MemoryMajor && MemoryMinors.Contains(device.Minor))))
            || (_known ??= Read()).Contains((type, device.Major, device.Minor));
    }

    private HashSet<(uint Type, uint Major, uint Minor)> Read()
    {
        HashSet<(uint Type, uint Major, uint Minor)> known = [];
        Libc.statfs_t stat;
        using SafeFd dev = SafeFd.From(Libc.open(path, Libc.O_RDONLY | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0), "open", path);
        if (Libc.fstatfs(dev.Value, &stat) == 0 && (uint)stat.f_type != TmpfsMagic)
        {
            // An initramfs: the kernel mounts devtmpfs by itself only over the /dev of a root that it mounts.
            Check.Result(Libc.mount("devtmpfs", path, "devtmpfs", 0, null), "mount devtmpfs", path);
            using SafeFd mounted = SafeFd.From(Libc.open(path, Libc.O_RDONLY | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0), "open", path);
            Read(mounted, known, 0);
            return known;
        }

        Read(dev, known, 0);
        return known;
    }

    private static void Read(SafeFd directory, HashSet<(uint Type, uint Major, uint Minor)> known, int depth) =>
        FolderEntries.Read(directory, name =>
        {
            Libc.statx_t stat;
            if (Libc.statx(directory.Value, name, Libc.AT_SYMLINK_NOFOLLOW, Libc.STATX_TYPE, &stat) != 0)
            {
                return;
            }

            uint type = stat.stx_mode & Libc.S_IFMT;
            if (type is Libc.S_IFCHR or Libc.S_IFBLK)
            {
                known.Add((type, stat.stx_rdev_major, stat.stx_rdev_minor));
            }
            else if (type == Libc.S_IFDIR && depth < MaxDepth)
            {
                using SafeFd below = new(Libc.openat(directory.Value, System.Runtime.InteropServices.Marshal.PtrToStringUTF8((nint)name)!, Libc.O_RDONLY | Libc.O_DIRECTORY | Libc.O_NOFOLLOW | Libc.O_CLOEXEC, 0));
                if (!below.IsInvalid)
                {
                    Read(below, known, depth + 1);
                }
            }
        });
}
