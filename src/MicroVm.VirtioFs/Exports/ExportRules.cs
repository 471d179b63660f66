using MicroVm.VmmControl;

namespace MicroVm.VirtioFs.Exports;

/// <summary>
/// What the guest may do below an export, and how it may cache. Exports with equal rules share one instance, and what is
/// one inode on the host is one inode below all of them.
/// </summary>
/// <param name="Index">Its number in the <see cref="ExportTable"/>, used for nothing else ever.</param>
/// <param name="ReadOnly">Every change is refused.</param>
/// <param name="Cache">How the guest may cache.</param>
/// <param name="HidesMounts">
/// Names lead to what the mounts below cover, so that a directory has other entries here than where those mounts are shown.
/// </param>
internal sealed record ExportRules(int Index, bool ReadOnly, FsCache Cache, bool HidesMounts = false)
{
    /// <summary>
    /// How long names and attributes may be believed, in seconds: what the host or another VM changes is seen after that.
    /// </summary>
    public const ulong ValidSeconds = 1;
}
