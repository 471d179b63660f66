using System.Globalization;

namespace MicroVm.EndToEnd.Support;

/// <summary>Containers whose VM has guest/hostile-agent.c as its init.</summary>
internal static class HostileAgent
{
    /// <summary>Makes an initramfs with the agent; the result are flags of `create` and `run`.</summary>
    /// <param name="bundle">Where the initramfs is put.</param>
    /// <param name="attack">What the agent does.</param>
    /// <param name="startSeconds">For --start-timeout.</param>
    public static string[] Flags(Bundle bundle, string attack, int startSeconds)
    {
        string folder = Directory.CreateDirectory(Path.Combine(bundle.Path, "initramfs")).FullName;
        Shell.Run("sh", "-ec", $"cd {folder}; install -m 755 {Installation.GuestProgram("hostile-agent")} init; mkdir dev; mknod dev/console c 5 1; find . | busybox cpio -o -H newc >../initramfs.cpio").EnsureSuccess();
        return
        [
            "--initramfs", Path.Combine(bundle.Path, "initramfs.cpio"), "--kernel-args", $"attack={attack}",
            "--start-timeout", startSeconds.ToString(CultureInfo.InvariantCulture),
        ];
    }
}
