using MicroVm.VmmControl;

namespace MicroVm.Bus.Tests;

public sealed class AddressBusTests
{
    [Fact]
    public void Accesses_find_their_device_and_offset()
    {
        AddressBus bus = new("test");
        Recorder a = new(), b = new();
        bus.Add(0x2000, 0x1000, b);
        bus.Add(0x1000, 0x10, a);
        bus.Write(0x100f, [1]);
        bus.Write(0x2ffc, [1, 2, 3, 4]);
        Assert.Equal([(0xful, 1)], a.Writes);
        Assert.Equal([(0xffcul, 4)], b.Writes);
    }

    [Theory]
    [InlineData(0x0fff, 1)]
    [InlineData(0x1010, 1)]
    [InlineData(0x100e, 4)]
    [InlineData(0x0ffe, 4)]
    [InlineData(ulong.MaxValue, 8)]
    public void Unknown_accesses_read_all_ones_and_are_counted(ulong address, int length)
    {
        AddressBus bus = new("test");
        Recorder device = new();
        bus.Add(0x1000, 0x10, device);
        byte[] data = new byte[length];
        bus.Read(address, data);
        Assert.All(data, v => Assert.Equal(0xff, v));
        bus.Write(address, data);
        Assert.Empty(device.Writes);
        Assert.Equal((1, 1), (bus.UnknownReads, bus.UnknownWrites));
    }

    [Theory]
    [InlineData(0x1000, 0x10)]
    [InlineData(0x0ff0, 0x11)]
    [InlineData(0x100f, 1)]
    [InlineData(0x2000, 0)]
    [InlineData(ulong.MaxValue, 2)]
    public void Overlapping_empty_and_wrapping_ranges_are_refused(ulong start, ulong length)
    {
        AddressBus bus = new("test");
        bus.Add(0x1000, 0x10, new Recorder());
        Assert.Throws<ArgumentException>(() => bus.Add(start, length, new Recorder()));
    }

    [Theory]
    [InlineData(0x600, (byte)0x34, VmmExitCode.PoweredOff)]
    [InlineData(0x600, (byte)0x14, null)]
    [InlineData(0x601, (byte)0x34, null)]
    [InlineData(0x602, (byte)1, VmmExitCode.Reset)]
    [InlineData(0x602, (byte)0, null)]
    [InlineData(0x64, (byte)0xfe, VmmExitCode.Reset)]
    [InlineData(0x64, (byte)0xd1, null)]
    [InlineData(0x60, (byte)0xfe, null)]
    public void Power_ports(int port, byte value, VmmExitCode? expected)
    {
        AddressBus bus = new("pio");
        Power power = new();
        bus.Add(IoPorts.KeyboardData, KeyboardController.Length, new KeyboardController(power));
        bus.Add(IoPorts.SleepControl, AcpiPowerPorts.Length, new AcpiPowerPorts(power));
        bus.Write((ulong)port, [value]);
        Assert.Equal(expected, power.Ended);
        byte[] status = [0xaa];
        bus.Read((ulong)port, status);
        Assert.Equal(0, status[0]);
    }

    private sealed class Recorder : IBusDevice
    {
        public List<(ulong Offset, int Length)> Writes { get; } = [];

        public void Read(ulong offset, Span<byte> data) => data.Clear();

        public void Write(ulong offset, ReadOnlySpan<byte> data) => Writes.Add((offset, data.Length));
    }

    private sealed class Power : IPowerEvents
    {
        public VmmExitCode? Ended { get; private set; }

        public void PowerOff() => Ended = VmmExitCode.PoweredOff;

        public void Reset() => Ended = VmmExitCode.Reset;
    }
}
