using MicroVm.Linux;

namespace MicroVm.Kvm;

/// <summary>This host has no KVM that can be used; the message says what is missing and what to do.</summary>
public sealed class KvmUnavailableException : IOException
{
    /// <summary>Creates the exception with its text.</summary>
    public KvmUnavailableException(string message)
        : base(message)
    {
    }

    /// <summary>Explains why <paramref name="path"/> could not be opened.</summary>
    public static KvmUnavailableException ForOpen(string path, Errno errno) => new(errno switch
    {
        Errno.ENOENT => $"{path} does not exist: load the kvm-intel or kvm-amd module, or enable virtualization in the firmware (or nested virtualization in the hypervisor)",
        Errno.EACCES or Errno.EPERM => $"no permission to open {path}: run as root or as a member of its group (usually kvm)",
        Errno.ENODEV or Errno.ENXIO => $"{path} is there but the kernel has no KVM behind it: load the kvm-intel or kvm-amd module",
        _ => $"cannot open {path}: {LinuxException.Text(errno)} ({errno})",
    });
}
