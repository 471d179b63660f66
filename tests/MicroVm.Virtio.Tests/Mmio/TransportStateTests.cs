using System.Buffers.Binary;
using FsCheck;
using FsCheck.Fluent;
using MicroVm.Linux;
using MicroVm.Memory;
using MicroVm.Tests.Shared;
using MicroVm.Virtio.Mmio;
using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Virtio.Tests.Mmio;

/// <summary>A device's state after it was saved and restored; and whatever a file says its state is.</summary>
public sealed class TransportStateTests : IDisposable
{
    private const ulong Base = 0xd000_0000;
    private readonly GuestMemory _memory = GuestMemory.Create(1 << 20);
    private readonly EventLoop _loop = new();

    public void Dispose()
    {
        _loop.Dispose();
        _memory.Dispose();
    }

    [Fact]
    public void An_active_device_goes_on_where_its_queues_stood()
    {
        FakeDevice device = new();
        byte[] state = Save(device, (5, 5));
        FakeDevice restored = new();
        FakeRouting routing = new();
        using MmioTransport transport = New(restored, routing);
        transport.Restore(new StateReader("fake", state));
        VirtioActivation active = Assert.IsType<VirtioActivation>(restored.Active);
        Assert.Equal((5, 5), active.Queues[0]!.Position);
        Assert.Null(active.Queues[1]);
        Assert.Equal(VirtioFeature.Version1, active.DriverFeatures);
        Assert.Equal(VirtioStatus.Acknowledge | VirtioStatus.Driver | VirtioStatus.FeaturesOk | VirtioStatus.DriverOk, transport.Status);

        // What came while nobody listened: the driver's kick, and an interrupt that it had not acknowledged.
        Assert.Equal(1ul, active.Queues[0]!.Kick.Drain());
        Assert.Equal(1ul, routing.Interrupts[7].Drain());
        Assert.Equal(1u, Register(transport, MmioRegister.InterruptStatus));
        Assert.Equal(state, Save(transport));
    }

    [Fact]
    public void A_window_that_nobody_used_stays_so()
    {
        using MmioTransport transport = New(new FakeDevice());
        byte[] state = Save(transport);
        FakeDevice restored = new();
        using MmioTransport again = New(restored);
        again.Restore(new StateReader("fake", state));
        Assert.Null(restored.Active);
        Assert.Equal(VirtioStatus.None, again.Status);
    }

    [Fact]
    public void A_request_under_way_is_told()
    {
        FakeDevice device = new();
        using MmioTransport transport = Active(device);
        Assert.Null(transport.WhyNotSaved());
        device.Active!.Queues[0]!.Position = (6, 5);
        Assert.Equal("fake has requests under way in queue 0", transport.WhyNotSaved());
        device.Active.Queues[0]!.Position = (6, 6);
        device.Active.Interrupt.SignalNeedsReset("a test");
        Assert.Equal("fake has failed and waits for its driver to reset it", transport.WhyNotSaved());
    }

    [Fact]
    public void Every_truncated_state_is_refused()
    {
        byte[] state = Save(new FakeDevice(), (5, 5));
        for (int i = 0; i < state.Length; i++)
        {
            using MmioTransport transport = New(new FakeDevice());
            Assert.Throws<SnapshotException>(() => transport.Restore(new StateReader("fake", state.AsMemory(0, i))));
        }
    }

    /// <summary>No state makes a queue outside of memory, a status that no driver can reach, or another exception.</summary>
    [Fact]
    public void Any_state_is_one_that_a_driver_could_have_made_or_is_refused()
    {
        byte[] original = Save(new FakeDevice(), (5, 5));
        Gen<(int At, ulong Value, int Width)> change =
            from at in Gen.Choose(0, original.Length - 1)
            from width in Gen.Elements(1, 4, 8)
            from value in Gen.OneOf(
                Gen.Choose(0, 255).Select(n => (ulong)n),
                Gen.Choose(0, 255).Select(n => ulong.MaxValue - (ulong)n),
                Gen.Choose(0, 20).Select(n => (1ul << 20) - (ulong)n),
                Gen.Choose(0, 63).Select(n => 1ul << n))
            select (at, value, width);
        int taken = 0;
        Prop.ForAll(change.ListOf(2).ToArbitrary(), changes =>
        {
            byte[] state = [.. original];
            Span<byte> number = stackalloc byte[8];
            foreach ((int at, ulong value, int width) in changes)
            {
                BinaryPrimitives.WriteUInt64LittleEndian(number, value);
                int n = Math.Min(width, state.Length - at);
                number[..n].CopyTo(state.AsSpan(at));
            }

            FakeDevice device = new();
            using MmioTransport transport = New(device);
            try
            {
                transport.Restore(new StateReader("fake", state));
            }
            catch (SnapshotException e)
            {
                Assert.DoesNotContain(e.Message, char.IsControl);
                return;
            }

            taken++;
            foreach (Virtqueue? queue in device.Active?.Queues ?? [])
            {
                if (queue is not null)
                {
                    Assert.True(_memory.Contains(queue.Layout.DescriptorTable, (ulong)queue.Size * Descriptor.Size));
                    Assert.True(_memory.Contains(queue.Layout.UsedRing, 6 + (8ul * (ulong)queue.Size)));
                    Assert.True(_memory.Contains(queue.Layout.AvailableRing, 6 + (2ul * (ulong)queue.Size)));
                }
            }
        }).QuickCheckThrowOnFailure();
        Assert.True(taken > 0, "no changed state was taken");
    }

    private MmioTransport New(FakeDevice device, FakeRouting? routing = null) => new(device, _memory, _loop, routing ?? new FakeRouting(), Base, 7);

    private MmioTransport Active(FakeDevice device)
    {
        MmioTransport transport = New(device);
        foreach ((uint register, uint value) in ((uint, uint)[])[
            (MmioRegister.Status, 1), (MmioRegister.Status, 3), (MmioRegister.DriverFeaturesSel, 1), (MmioRegister.DriverFeatures, 1),
            (MmioRegister.Status, 0xb), (MmioRegister.QueueNum, 64), (MmioRegister.QueueDescLow, 0x1000), (MmioRegister.QueueDriverLow, 0x2000),
            (MmioRegister.QueueDeviceLow, 0x3000), (MmioRegister.QueueReady, 1), (MmioRegister.Status, 0xf)])
        {
            byte[] data = new byte[4];
            BinaryPrimitives.WriteUInt32LittleEndian(data, value);
            transport.Write(register, data);
        }

        Assert.NotNull(device.Active);
        return transport;
    }

    private byte[] Save(FakeDevice device, (ushort, ushort) position)
    {
        using MmioTransport transport = Active(device);
        device.Active!.Queues[0]!.Position = position;
        device.Active.Interrupt.SignalUsed();
        return Save(transport);
    }

    private static byte[] Save(MmioTransport transport)
    {
        StateWriter writer = new();
        transport.Save(writer);
        return writer.Content.ToArray();
    }

    private static uint Register(MmioTransport transport, uint register)
    {
        byte[] data = new byte[4];
        transport.Read(register, data);
        return BinaryPrimitives.ReadUInt32LittleEndian(data);
    }
}
