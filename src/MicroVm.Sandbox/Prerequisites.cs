using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Sandbox;

/// <summary>What no VM can be started without.</summary>
public static class Prerequisites
{
    /// <summary>KVM's device.</summary>
    public const string KvmDevice = "/dev/kvm";

    /// <summary>Throws, with the cure, when this user or host cannot run VMs.</summary>
    /// <exception cref="SandboxException">Not root, or KVM is not there.</exception>
    public static void Check()
    {
        if ((UserProblem() ?? KvmProblem()) is { } problem)
        {
            throw new SandboxException(problem);
        }
    }

    /// <summary>What is wrong with the user; null when nothing is.</summary>
    public static string? UserProblem() =>
        Libc.geteuid() == 0 ? null : "microvm must be run as root: containers' files belong to many users, and only root can serve them to the guest; use sudo";

    /// <summary>What is wrong with /dev/kvm; null when nothing is.</summary>
    public static string? KvmProblem()
    {
        int fd = Libc.open(KvmDevice, Libc.O_RDWR | Libc.O_CLOEXEC, 0);
        if (fd >= 0)
        {
            _ = Libc.close(fd);
            return null;
        }

        return Linux.Check.LastErrno switch
        {
            Errno.ENOENT => $"{KvmDevice} does not exist: load kvm_intel or kvm_amd (modprobe), turn on VT-x or AMD-V in the firmware, or nested virtualisation where this machine is itself a VM",
            Errno.EACCES or Errno.EPERM => $"{KvmDevice} cannot be opened: permission denied; run as root, and in a container pass the device (--device {KvmDevice})",
            Errno errno => $"{KvmDevice} cannot be opened: {LinuxException.Text(errno)}",
        };
    }
}
