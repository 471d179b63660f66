using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Sandbox.Templates;

/// <summary>A template, for lists.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Header">What its snapshot is of; null where that cannot be read.</param>
/// <param name="Key">What it was made of, a line each; empty where that cannot be read.</param>
/// <param name="Problem">Why it cannot be used; null when nothing is known against it.</param>
public sealed record TemplateInfo(string Name, SnapshotHeader? Header, string Key, string? Problem)
{
    /// <summary>It was made of other files than the runtime's, or before the host's last boot: no VM starts from it any more.</summary>
    public bool IsOutdated { get; init; }
}
