namespace MicroVm.VmmControl;

/// <summary>Names in JSON, in the order of each enumeration: its own names would be looked up by reflection.</summary>
internal static class EnumNames
{
    internal static readonly string[] MachineTables = [nameof(VmmControl.MachineTables.Both), nameof(VmmControl.MachineTables.MpTable), nameof(VmmControl.MachineTables.Acpi)];

    internal static readonly string[] FsCache = [nameof(VmmControl.FsCache.Exclusive), nameof(VmmControl.FsCache.Shared)];

    internal static readonly string[] ControlOperation =
    [
        nameof(VmmControl.ControlOperation.Info),
        nameof(VmmControl.ControlOperation.Pause),
        nameof(VmmControl.ControlOperation.Resume),
        nameof(VmmControl.ControlOperation.Stop),
        nameof(VmmControl.ControlOperation.AddExport),
        nameof(VmmControl.ControlOperation.RemoveExport),
        nameof(VmmControl.ControlOperation.AttachNet),
        nameof(VmmControl.ControlOperation.SetNetLink),
        nameof(VmmControl.ControlOperation.DetachNet),
    ];
}
