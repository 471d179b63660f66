using System.Buffers.Binary;
using FsCheck;
using FsCheck.Fluent;
using MicroVm.Linux;
using MicroVm.Memory;
using MicroVm.Tests.Shared;
using MicroVm.Virtio.Mmio;

namespace MicroVm.Virtio.Tests.Mmio;

public sealed class MmioTransportTests : IDisposable
{
    private const ulong Base = 0xd000_0000;
    private const ulong StatusWord = 0x3004;
    private const uint Gsi = 7;
    private const uint Acknowledged = 1, Driver = 3, FeaturesOk = 0xb, DriverOk = 0xf, NeedsReset = 0x40, Failed = 0x80;
    private readonly GuestMemory _memory = GuestMemory.Create(1 << 20);
    private readonly EventLoop _loop = new();
    private readonly FakeRouting _routing = new();
    private readonly FakeDevice _device = new();
    private readonly MmioTransport _transport;

    public MmioTransportTests() => _transport = new MmioTransport(_device, _memory, _loop, _routing, Base, Gsi);

    public void Dispose()
    {
        _transport.Dispose();
        _loop.Dispose();
        _memory.Dispose();
    }

    [Fact]
    public void Identity_registers()
    {
        Assert.Equal(0x7472_6976u, Read(MmioRegister.MagicValue));
        Assert.Equal(2u, Read(MmioRegister.Version));
        Assert.Equal(42u, Read(MmioRegister.DeviceId));
        Assert.Equal((uint)(FakeDevice.Feature | VirtioFeature.RingEventIdx | VirtioFeature.RingIndirectDesc), Read(MmioRegister.DeviceFeatures));
        Write(MmioRegister.DeviceFeaturesSel, 1);
        Assert.Equal(1u, Read(MmioRegister.DeviceFeatures));
        Write(MmioRegister.DeviceFeaturesSel, 2);
        Assert.Equal(0u, Read(MmioRegister.DeviceFeatures));
    }

    [Fact]
    public void A_driver_that_keeps_the_order_gets_an_active_device()
    {
        Negotiate();
        SetUpQueue(0, 64);
        Write(MmioRegister.Status, DriverOk);
        Assert.Equal(DriverOk, Read(MmioRegister.Status));
        VirtioActivation active = Assert.IsType<VirtioActivation>(_device.Active);
        Assert.Equal(64, active.Queues[0]!.Size);
        Assert.Null(active.Queues[1]);
        Assert.Equal(VirtioFeature.Version1, active.DriverFeatures);
        Assert.Equal([(Base + MmioRegister.QueueNotify, 0u)], _routing.IoEvents.Keys);
        Assert.Equal(0, _transport.Violations);

        // Buffers that were queued before DRIVER_OK must not wait for another kick.
        Assert.Equal(1ul, active.Queues[0]!.Kick.Drain());
        Write(MmioRegister.QueueNotify, 0);
        Write(MmioRegister.QueueNotify, 1);
        Write(MmioRegister.QueueNotify, 99);
        Assert.Equal(1ul, active.Queues[0]!.Kick.Drain());
    }

    [Fact]
    public void Interrupts_set_status_bits_until_they_are_acknowledged()
    {
        Negotiate();
        Write(MmioRegister.Status, DriverOk);
        _device.Active!.Interrupt.SignalUsed();
        _device.Active.Interrupt.SignalConfigChange();
        Assert.Equal(3u, Read(MmioRegister.InterruptStatus));
        Assert.Equal(2ul, _routing.Interrupts[Gsi].Drain());
        Assert.Equal(1u, Read(MmioRegister.ConfigGeneration));
        Write(MmioRegister.InterruptAck, 1);
        Assert.Equal(2u, Read(MmioRegister.InterruptStatus));
        Write(MmioRegister.InterruptAck, 2);
        Assert.Equal(0u, Read(MmioRegister.InterruptStatus));
    }

    [Fact]
    public void Interrupt_status_in_guest_memory_raises_the_line_once_until_the_driver_takes_it()
    {
        Negotiate();
        Assert.Equal(MmioRegister.StatusWordMagic, Read(MmioRegister.StatusWord));
        KeepStatusAt(StatusWord);
        Write(MmioRegister.Status, DriverOk);
        EventFd line = _routing.Interrupts[Gsi];
        _device.Active!.Interrupt.SignalUsed();
        _device.Active.Interrupt.SignalConfigChange();
        Assert.Equal((0u, 3), (Read(MmioRegister.InterruptStatus), TakeStatus()));
        Assert.Equal(1ul, line.Drain());
        _device.Active.Interrupt.SignalUsed();
        Assert.Equal((1ul, 1), (line.Drain(), TakeStatus()));

        // The address 0 ends it, and so does a reset.
        KeepStatusAt(0);
        _device.Active.Interrupt.SignalUsed();
        Assert.Equal((1u, 0), (Read(MmioRegister.InterruptStatus), TakeStatus()));
        KeepStatusAt(StatusWord);
        Assert.Equal((0u, 1), (Read(MmioRegister.InterruptStatus), TakeStatus()));
        Assert.Equal(2ul, line.Drain());
        Write(MmioRegister.Status, 0);
        Negotiate();
        Write(MmioRegister.Status, DriverOk);
        _device.Active.Interrupt.SignalUsed();
        Assert.Equal((1u, 0), (Read(MmioRegister.InterruptStatus), TakeStatus()));
        Assert.Equal(0, _transport.Violations);
    }

    [Fact]
    public void What_was_pending_before_the_device_is_active_is_not_lost()
    {
        Negotiate();
        KeepStatusAt(StatusWord);
        _transport.SignalConfigChange();
        Write(MmioRegister.Status, DriverOk);
        Assert.Equal((1ul, 2), (_routing.Interrupts[Gsi].Drain(), TakeStatus()));
    }

    [Theory]
    [InlineData(2ul)]
    [InlineData(StatusWord + 1)]
    [InlineData(1ul << 20)]
    [InlineData(ulong.MaxValue - 3)]
    public void A_status_word_outside_of_memory_or_not_aligned_is_refused(ulong gpa)
    {
        Negotiate();
        KeepStatusAt(gpa);
        Assert.Equal(1, _transport.Violations);
        Write(MmioRegister.Status, DriverOk);
        _device.Active!.Interrupt.SignalUsed();
        Assert.Equal(1u, Read(MmioRegister.InterruptStatus));
    }

    [Fact]
    public void Reset_stops_the_device_and_forgets_everything()
    {
        Negotiate();
        SetUpQueue(1, 8);
        Write(MmioRegister.Status, DriverOk);
        _device.Active!.Interrupt.SignalNeedsReset("test");
        Assert.Equal(DriverOk | NeedsReset, Read(MmioRegister.Status));
        Assert.Equal(2u, Read(MmioRegister.InterruptStatus) & 2);
        Write(MmioRegister.Status, 0);
        Assert.Equal((1, 1), (_device.Activations, _device.Resets));
        Assert.Equal((0u, 0u), (Read(MmioRegister.Status), Read(MmioRegister.InterruptStatus)));
        Assert.Empty(_routing.IoEvents);

        // And it can be started again.
        Negotiate();
        Write(MmioRegister.QueueSel, 1);
        Assert.Equal(0u, Read(MmioRegister.QueueReady));
        SetUpQueue(1, 8);
        Write(MmioRegister.Status, DriverOk);
        Assert.Equal(2, _device.Activations);
    }

    [Theory]
    [InlineData(0xffff_ffffu, 1u)]
    [InlineData(0u, 0u)]
    [InlineData(0u, 3u)]
    public void Features_that_were_not_offered_or_no_VERSION_1_are_refused(uint low, uint high)
    {
        Write(MmioRegister.Status, Acknowledged);
        Write(MmioRegister.Status, Driver);
        WriteFeatures(low, high);
        Write(MmioRegister.Status, FeaturesOk);
        Assert.Equal(Driver, Read(MmioRegister.Status));
        Write(MmioRegister.Status, DriverOk);
        Assert.Equal(Driver, Read(MmioRegister.Status));
        Assert.Null(_device.Active);
    }

    [Theory]
    [InlineData(2u)]
    [InlineData(4u)]
    [InlineData(8u)]
    [InlineData(DriverOk & ~8u)]
    public void Status_bits_out_of_order_are_ignored(uint status)
    {
        Write(MmioRegister.Status, status);
        Assert.Equal(0u, Read(MmioRegister.Status));
        Assert.Equal(1, _transport.Violations);
    }

    [Fact]
    public void Status_bits_cannot_be_cleared_but_all_at_once()
    {
        Negotiate();
        Write(MmioRegister.Status, Driver);
        Assert.Equal(FeaturesOk, Read(MmioRegister.Status));
        Write(MmioRegister.Status, Failed | FeaturesOk);
        Assert.Equal(Failed | FeaturesOk, Read(MmioRegister.Status));
        Write(MmioRegister.Status, Failed | DriverOk);
        Assert.Null(_device.Active);
        Write(MmioRegister.Status, 0);
        Assert.Equal(0u, Read(MmioRegister.Status));
    }

    [Theory]
    [InlineData(7u, 0x1000ul, 0x2000ul, 0x3000ul)]
    [InlineData(128u, 0x1000ul, 0x2000ul, 0x3000ul)]
    [InlineData(0x1_0040u, 0x1000ul, 0x2000ul, 0x3000ul)]
    [InlineData(0u, 0x1000ul, 0x2000ul, 0x3000ul)]
    [InlineData(64u, 0x1001ul, 0x2000ul, 0x3000ul)]
    [InlineData(64u, 0x1000ul, 0x2001ul, 0x3000ul)]
    [InlineData(64u, 0x1000ul, 0x2000ul, 0x3002ul)]
    [InlineData(64u, 0xffff0ul, 0x2000ul, 0x3000ul)]
    [InlineData(64u, 0x1000ul, 0xffff_ffff_ffff_fff0ul, 0x3000ul)]
    public void A_bad_layout_asks_for_a_reset_and_activates_nothing(uint size, ulong table, ulong available, ulong used)
    {
        Negotiate();
        SetUpQueue(0, size, table, available, used);
        Write(MmioRegister.Status, DriverOk);
        Assert.Equal(DriverOk | NeedsReset, Read(MmioRegister.Status));
        Assert.Null(_device.Active);
        Assert.Empty(_routing.IoEvents);
        Write(MmioRegister.Status, 0);
        Assert.Equal(0, _device.Resets);
    }

    [Fact]
    public void A_device_that_cannot_start_asks_for_a_reset()
    {
        _device.ActivateThrows = new InvalidOperationException("no");
        Negotiate();
        SetUpQueue(0, 64);
        Write(MmioRegister.Status, DriverOk);
        Assert.Equal(DriverOk | NeedsReset, Read(MmioRegister.Status));
        Assert.Empty(_routing.IoEvents);
        Write(MmioRegister.Status, 0);
        Assert.Equal(0, _device.Resets);
    }

    [Fact]
    public void Queue_registers_outside_of_their_phase_are_ignored()
    {
        SetUpQueue(0, 64);
        Assert.Equal(0u, Read(MmioRegister.QueueReady));
        Negotiate();
        SetUpQueue(0, 64);
        Write(MmioRegister.QueueNum, 8);
        Write(MmioRegister.Status, DriverOk);
        Write(MmioRegister.QueueReady, 0);
        Assert.Equal(1u, Read(MmioRegister.QueueReady));
        Assert.Equal(64, _device.Active!.Queues[0]!.Size);
        Write(MmioRegister.QueueSel, 2);
        Assert.Equal((0u, 0u), (Read(MmioRegister.QueueNumMax), Read(MmioRegister.QueueReady)));
    }

    [Fact]
    public void Shared_memory_regions()
    {
        Assert.Equal((0x1000u, 2u, 0x2345_6000u, 1u), Region(0));
        Assert.Equal((uint.MaxValue, uint.MaxValue, uint.MaxValue, uint.MaxValue), Region(1));
        Assert.Equal((uint.MaxValue, uint.MaxValue, uint.MaxValue, uint.MaxValue), Region(0x100));
    }

    [Fact]
    public void Config_space_takes_any_width_and_registers_only_32_bits()
    {
        byte[] two = new byte[2];
        _transport.Read(MmioRegister.Config + 1, two);
        Assert.Equal([2, 3], two);
        byte[] eight = new byte[8];
        _transport.Read(MmioRegister.Config + 4, eight);
        Assert.Equal([5, 6, 7, 8, 0, 0, 0, 0], eight);
        _transport.Read(MmioRegister.MagicValue, two);
        Assert.Equal([0, 0], two);
        _transport.Write(MmioRegister.Status, [1]);
        Assert.Equal(0u, Read(MmioRegister.Status));
    }

    /// <summary>Whatever is written in whatever order: no exception, and the device runs exactly while the status says so.</summary>
    [Fact]
    public void Random_register_writes_keep_the_invariants()
    {
        uint[] registers = [.. Enumerable.Range(0, 64).Select(i => (uint)i * 4)];
        Gen<(uint Register, uint Value)> write =
            from register in Gen.Frequency(
                (4, Gen.Constant(MmioRegister.Status)),
                (2, Gen.Elements(MmioRegister.QueueSel, MmioRegister.DriverFeaturesSel, MmioRegister.QueueReady, MmioRegister.QueueNum)),
                (2, Gen.Constant(MmioRegister.DriverFeatures)),
                (3, Gen.Elements(registers)))
            from value in Gen.Frequency(
                (3, Gen.Elements(0u, Acknowledged, Driver, FeaturesOk, DriverOk, DriverOk, Failed)),
                (3, Gen.Elements(1u, 2u, 8u, 64u, 0x1000u, 0x2000u, 0x3000u)),
                (1, Gen.Choose(0, 255).Select(v => (uint)v)),
                (1, Gen.Choose(int.MinValue, int.MaxValue).Select(v => (uint)v)))
            select (register, value);

        // The right order, of which each case does the first so many steps: else hardly any would get far.
        (uint Register, uint Value)[] right =
        [
            (MmioRegister.Status, Acknowledged), (MmioRegister.Status, Driver), (MmioRegister.DriverFeaturesSel, 1), (MmioRegister.DriverFeatures, 1),
            (MmioRegister.Status, FeaturesOk), (MmioRegister.QueueNum, 8), (MmioRegister.QueueDescLow, 0x1000), (MmioRegister.QueueDriverLow, 0x2000),
            (MmioRegister.QueueDeviceLow, 0x3000), (MmioRegister.QueueReady, 1), (MmioRegister.Status, DriverOk),
        ];
        var cases = from steps in Gen.Choose(0, right.Length) from writes in write.ArrayOf(40) select (steps, writes);
        Prop.ForAll(cases.ToArbitrary(), c =>
        {
            Write(MmioRegister.Status, 0);
            foreach ((uint register, uint value) in right.Take(c.steps).Concat(c.writes))
            {
                Write(register, value);
                foreach (uint r in registers)
                {
                    _ = Read(r);
                }

                uint status = Read(MmioRegister.Status);
                Assert.Equal(_transport.IsActive, _device.Active is not null);
                Assert.Equal(_device.Active is not null, (status & (4 | NeedsReset)) == 4);
                Assert.True((status & 2) == 0 || (status & 1) != 0);
                Assert.True((status & 8) == 0 || (status & 2) != 0);
                Assert.True((status & 4) == 0 || (status & 8) != 0);
                Assert.True(_device.Active is not null || _routing.IoEvents.Count == 0);
            }
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(1000));
        Assert.NotEqual(0, _device.Activations);
    }

    private (uint, uint, uint, uint) Region(uint id)
    {
        Write(MmioRegister.ShmSel, id);
        return (Read(MmioRegister.ShmLenLow), Read(MmioRegister.ShmLenHigh), Read(MmioRegister.ShmBaseLow), Read(MmioRegister.ShmBaseHigh));
    }

    private void KeepStatusAt(ulong gpa)
    {
        Write(MmioRegister.StatusWordLow, (uint)gpa);
        Write(MmioRegister.StatusWordHigh, (uint)(gpa >> 32));
    }

    private unsafe int TakeStatus() => Interlocked.Exchange(ref *(int*)_memory.TryGetPointer(StatusWord, sizeof(int)), 0);

    private void Negotiate()
    {
        Write(MmioRegister.Status, 0);
        Write(MmioRegister.Status, Acknowledged);
        Write(MmioRegister.Status, Driver);
        WriteFeatures(0, 1);
        Write(MmioRegister.Status, FeaturesOk);
        Assert.Equal(FeaturesOk, Read(MmioRegister.Status));
    }

    private void WriteFeatures(uint low, uint high)
    {
        Write(MmioRegister.DriverFeaturesSel, 0);
        Write(MmioRegister.DriverFeatures, low);
        Write(MmioRegister.DriverFeaturesSel, 1);
        Write(MmioRegister.DriverFeatures, high);
    }

    private void SetUpQueue(uint index, uint size, ulong table = 0x1000, ulong available = 0x2000, ulong used = 0x3000)
    {
        Write(MmioRegister.QueueSel, index);
        Write(MmioRegister.QueueNum, size);
        Write(MmioRegister.QueueDescLow, (uint)table);
        Write(MmioRegister.QueueDescHigh, (uint)(table >> 32));
        Write(MmioRegister.QueueDriverLow, (uint)available);
        Write(MmioRegister.QueueDriverHigh, (uint)(available >> 32));
        Write(MmioRegister.QueueDeviceLow, (uint)used);
        Write(MmioRegister.QueueDeviceHigh, (uint)(used >> 32));
        Write(MmioRegister.QueueReady, 1);
    }

    private uint Read(uint register)
    {
        byte[] data = new byte[4];
        _transport.Read(register, data);
        return BinaryPrimitives.ReadUInt32LittleEndian(data);
    }

    private void Write(uint register, uint value)
    {
        byte[] data = new byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(data, value);
        _transport.Write(register, data);
    }
}
