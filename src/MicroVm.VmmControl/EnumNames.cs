using MicroVm.Json;

namespace MicroVm.VmmControl;

/// <summary>The names of enumerations in JSON.</summary>
internal static class EnumNames
{
    internal static readonly NamedValues<MachineTables> MachineTables = new(
        (VmmControl.MachineTables.Both, "Both"),
        (VmmControl.MachineTables.MpTable, "MpTable"),
        (VmmControl.MachineTables.Acpi, "Acpi"));

    internal static readonly NamedValues<FsCache> FsCache = new(
        (VmmControl.FsCache.Exclusive, "Exclusive"),
        (VmmControl.FsCache.Shared, "Shared"));

    internal static readonly NamedValues<ControlOperation> ControlOperation = new(
        (VmmControl.ControlOperation.Info, "Info"),
        (VmmControl.ControlOperation.Pause, "Pause"),
        (VmmControl.ControlOperation.Resume, "Resume"),
        (VmmControl.ControlOperation.Stop, "Stop"),
        (VmmControl.ControlOperation.AddExport, "AddExport"),
        (VmmControl.ControlOperation.RemoveExport, "RemoveExport"),
        (VmmControl.ControlOperation.AttachNet, "AttachNet"),
        (VmmControl.ControlOperation.SetNetLink, "SetNetLink"),
        (VmmControl.ControlOperation.DetachNet, "DetachNet"),
        (VmmControl.ControlOperation.Save, "Save"),
        (VmmControl.ControlOperation.ResizeMemory, "ResizeMemory"),
        (VmmControl.ControlOperation.Trace, "Trace"),
        (VmmControl.ControlOperation.ResizeVcpus, "ResizeVcpus"));
}
