using MicroVm.Agent.Cgroups;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Agent.Boot;

/// <summary>The guest's own mounts.</summary>
public static unsafe class GuestMounts
{
    private static bool s_sysfs;

    /// <summary>
    /// Makes the root one that containers' mount namespaces can pivot away from, and mounts what every container needs:
    /// procfs and cgroup2. The directories are in the agent's image, which is read-only, or in the initramfs.
    /// </summary>
    /// <exception cref="LinuxException">The kernel lacks something.</exception>
    public static void Prepare()
    {
        LeaveInitramfs();
        const ulong plain = Libc.MS_NOSUID | Libc.MS_NODEV | Libc.MS_NOEXEC;
        Check.Result(Libc.mount("proc", "/proc", "proc", (nuint)plain, null), "mount", "/proc");
        Harden();
        Check.Result(Libc.mount("cgroup2", "/cgroup", "cgroup2", (nuint)plain, "nsdelegate"), "mount", "/cgroup");
    }

    // Addresses and messages of the kernel are for nobody in a container without CAP_SYSLOG. A kernel may lack either.
    private static void Harden()
    {
        foreach (string setting in (ReadOnlySpan<string>)["kptr_restrict", "dmesg_restrict"])
        {
            try
            {
                SmallFile.Write(null, "/proc/sys/kernel/" + setting, "1");
            }
            catch (LinuxException e) when (e.Errno == Errno.ENOENT)
            {
            }
        }
    }

    // The kernel's rootfs has no parent mount, without which pivot_root(2) refuses: a bind of it is put on top. The agent's
    // image was mounted by the kernel on top of the rootfs, and has no /root.
    private static void LeaveInitramfs()
    {
        if (Libc.mount("/", "/root", null, (nuint)Libc.MS_BIND, null) < 0)
        {
            if (Check.LastErrno != Errno.ENOENT)
            {
                Check.Throw("mount", "/root");
            }

            return;
        }

        fixed (byte* root = "/root\0"u8)
        {
            Check.Result(Libc.chdir(root), "chdir", "/root");
        }

        Check.Result(Libc.mount(".", "/", null, (nuint)Libc.MS_MOVE, null), "mount", "/ (move)");
        fixed (byte* dot = ".\0"u8)
        {
            Check.Result(Libc.chroot(dot), "chroot");
        }
    }

    /// <summary>Mounts sysfs at /sys unless it is.</summary>
    /// <exception cref="LinuxException">The kernel lacks it.</exception>
    public static void NeedSysfs()
    {
        if (!s_sysfs)
        {
            Check.Result(Libc.mount("sysfs", "/sys", "sysfs", 0, null), "mount", "/sys");

            // A container's read-only mount that came first made the whole file system so; the container's mount stays read-only.
            Check.Result(Libc.mount(null, "/sys", null, (nuint)Libc.MS_REMOUNT, null), "remount", "/sys");
            s_sysfs = true;
        }
    }
}
