namespace MicroVm.Oci;

/// <summary>What the guest's kernel lacks of the host's security modules, and how callers leave them out.</summary>
public static class GuestKernel
{
    /// <summary>Why an AppArmor profile is refused.</summary>
    public const string NoAppArmor =
        "the guest kernel has no AppArmor (docker, podman: --security-opt apparmor=unconfined; containerd's CRI: disable_apparmor = true)";

    /// <summary>Why an SELinux label is refused.</summary>
    public const string NoSelinux =
        "the guest kernel has no SELinux (docker, podman: --security-opt label=disable; containerd's CRI: enable_selinux = false)";
}
