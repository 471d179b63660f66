namespace MicroVm.Bus;

/// <summary>What a guest's power ports ask of the machine. Called on vCPU threads.</summary>
public interface IPowerEvents
{
    /// <summary>The guest powered off.</summary>
    void PowerOff();

    /// <summary>The guest reset itself.</summary>
    void Reset();
}

/// <summary>The ACPI sleep and reset registers, from <see cref="IoPorts.SleepControl"/> on.</summary>
public sealed class AcpiPowerPorts(IPowerEvents events) : IBusDevice
{
    /// <summary>How many ports there are.</summary>
    public const ulong Length = 4;

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data) => data.Clear();

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        switch (IoPorts.SleepControl + offset)
        {
            case IoPorts.SleepControl when data[0] == IoPorts.PowerOff:
                events.PowerOff();
                break;
            case IoPorts.Reset when data[0] == IoPorts.ResetValue:
                events.Reset();
                break;
        }
    }
}

/// <summary>The i8042's two ports, of which only the reset line is there.</summary>
public sealed class KeyboardController(IPowerEvents events) : IBusDevice
{
    /// <summary>How many ports there are, from <see cref="IoPorts.KeyboardData"/> on.</summary>
    public const ulong Length = IoPorts.KeyboardCommand - IoPorts.KeyboardData + 1;

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data) => data.Clear();

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        if (IoPorts.KeyboardData + offset == IoPorts.KeyboardCommand && data[0] == IoPorts.KeyboardReset)
        {
            events.Reset();
        }
    }
}
