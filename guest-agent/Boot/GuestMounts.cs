using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Agent.Boot;

/// <summary>The guest's own mounts.</summary>
public static unsafe class GuestMounts
{
    private static bool s_sysfs;

    /// <summary>
    /// Makes the root one that containers' mount namespaces can pivot away from, and mounts what every container needs:
    /// procfs and cgroup2. The directories are in the initramfs.
    /// </summary>
    /// <exception cref="LinuxException">The kernel lacks something.</exception>
    public static void Prepare()
    {
        // The kernel's rootfs has no parent mount, without which pivot_root(2) refuses: a bind of it is put on top.
        Check.Result(Libc.mount("/", "/root", null, (nuint)Libc.MS_BIND, null), "mount", "/root");
        fixed (byte* root = "/root\0"u8)
        {
            Check.Result(Libc.syscall((nint)Libc.SYS_chdir, (nint)root, 0, 0, 0, 0, 0), "chdir", "/root");
        }

        Check.Result(Libc.mount(".", "/", null, (nuint)Libc.MS_MOVE, null), "mount", "/ (move)");
        fixed (byte* dot = ".\0"u8)
        {
            Check.Result(Libc.syscall((nint)Libc.SYS_chroot, (nint)dot, 0, 0, 0, 0, 0), "chroot");
        }

        const ulong plain = Libc.MS_NOSUID | Libc.MS_NODEV | Libc.MS_NOEXEC;
        Check.Result(Libc.mount("proc", "/proc", "proc", (nuint)plain, null), "mount", "/proc");
        Check.Result(Libc.mount("cgroup2", "/cgroup", "cgroup2", (nuint)plain, "nsdelegate"), "mount", "/cgroup");
    }

    /// <summary>Mounts sysfs at /sys unless it is.</summary>
    /// <exception cref="LinuxException">The kernel lacks it.</exception>
    public static void NeedSysfs()
    {
        if (!s_sysfs)
        {
            fixed (byte* path = Encoding.UTF8.GetBytes("/sys\0"))
            {
                _ = Libc.mkdirat(Libc.AT_FDCWD, path, 0x16d);
            }

            Check.Result(Libc.mount("sysfs", "/sys", "sysfs", 0, null), "mount", "/sys");
            s_sysfs = true;
        }
    }
}
