using System.Runtime.InteropServices;

namespace MicroVm.Vmm.Devices.Console;

/// <summary>struct virtio_console_config (virtio 1.2, 5.3.4; linux/virtio_console.h), little-endian.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal struct ConsoleConfigSpace
{
    /// <summary>Bytes of the structure.</summary>
    public const int Size = 12;

    /// <summary>Offset of <see cref="EmergencyWrite"/>.</summary>
    public const uint EmergencyWriteOffset = 8;

    public ushort Columns;
    public ushort Rows;
    public uint MaxPorts;
    public uint EmergencyWrite;
}

/// <summary>Feature bits (5.3.3).</summary>
internal static class ConsoleFeature
{
    public const ulong Size = 1;
    public const ulong EmergencyWrite = 4;
}
