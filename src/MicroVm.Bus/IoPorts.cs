namespace MicroVm.Bus;

/// <summary>The machine's I/O ports. Every other port is absent (the in-kernel PICs' ports never get here).</summary>
public static class IoPorts
{
    /// <summary>First of the eight ports of the 16550A.</summary>
    public const ushort Serial = 0x3f8;

    /// <summary>Interrupt of the 16550A.</summary>
    public const uint SerialIrq = 4;

    /// <summary>Data port of the i8042; reads as 0.</summary>
    public const ushort KeyboardData = 0x60;

    /// <summary>Status (read) and command (write) port of the i8042. Status is always 0: ready, nothing to be read.</summary>
    public const ushort KeyboardCommand = 0x64;

    /// <summary>The one command that is known: pulse the reset line.</summary>
    public const byte KeyboardReset = 0xfe;

    /// <summary>ACPI sleep control register (ACPI 6.4, 4.8.3.7).</summary>
    public const ushort SleepControl = 0x600;

    /// <summary>Written to <see cref="SleepControl"/>, powers off: SLP_EN with SLP_TYP <see cref="SleepTypeS5"/>.</summary>
    public const byte PowerOff = (SleepTypeS5 << 2) | 0x20;

    /// <summary>SLP_TYP of the soft-off state, as \_S5 in the DSDT says.</summary>
    public const byte SleepTypeS5 = 5;

    /// <summary>ACPI sleep status register; reads as 0.</summary>
    public const ushort SleepStatus = 0x601;

    /// <summary>ACPI reset register (ACPI 6.4, 4.8.3.6).</summary>
    public const ushort Reset = 0x602;

    /// <summary>Written to <see cref="Reset"/>, resets.</summary>
    public const byte ResetValue = 1;
}
