namespace MicroVm.VmmControl.Snapshots;

/// <summary>A section of a state file.</summary>
/// <param name="Name">Its name: lower-case letters, digits, dots and dashes.</param>
/// <param name="Version">Version of its content.</param>
/// <param name="Content">Its bytes.</param>
public sealed record SnapshotSection(string Name, uint Version, ReadOnlyMemory<byte> Content);
