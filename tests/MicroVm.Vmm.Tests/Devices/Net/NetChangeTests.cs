using MicroVm.Tests.Shared.Virtio;
using MicroVm.Vmm.Devices.Net;
using Xunit;

namespace MicroVm.Vmm.Tests.Devices.Net;

/// <summary>An interface changes while its device runs; and several queue pairs at once.</summary>
public sealed class NetChangeTests
{
    private static readonly byte[] NoHeader = new byte[12];
    private static readonly byte[] Other = [2, 1, 1, 1, 1, 1];

    [SkippableFact]
    public void Another_address_is_kept_to_at_once_and_only_that()
    {
        Skip.If(TapNamespace.Missing is not null, TapNamespace.Missing);
        using NetGuest guest = new();
        guest.Device.Change(MacAddress.Read(Other), 1500);
        guest.Send(NoHeader, NetGuest.Frame(60));
        Assert.Null(guest.Tap.TryReceive());
        Assert.Equal(1, guest.Counter("tx.dropped.source"));
        byte[] frame = NetGuest.Frame(60, source: Other);
        guest.Send(NoHeader, frame);
        Assert.Equal(frame, guest.Tap.TryReceive());

        // The driver may take the new one over, and no other; frames for it come in, those for the old one do not.
        Assert.Equal(0, guest.Control(1, 1, Other));
        Assert.Equal(1, guest.Control(1, 1, NetGuest.Mac));
        Assert.True(guest.Tap.Send(NetGuest.Frame(70, destination: NetGuest.Mac, source: [2, 9, 9, 9, 9, 9])));
        byte[] own = NetGuest.Frame(80, destination: Other, source: [2, 9, 9, 9, 9, 9]);
        Assert.True(guest.Tap.Send(own));
        Assert.Equal(own, guest.Receive()?[12..]);
        byte[] config = new byte[6];
        guest.Device.ReadConfig(0, config);
        Assert.Equal(Other, config);
    }

    [SkippableFact]
    public void Another_mtu_is_the_limit_of_what_is_sent()
    {
        Skip.If(TapNamespace.Missing is not null, TapNamespace.Missing);
        using NetGuest guest = new();
        MacAddress own = MacAddress.Read(NetGuest.Mac);
        guest.Device.Change(own, 600);
        guest.Send(NoHeader, NetGuest.Frame(623));
        Assert.Equal(1, guest.Counter("tx.dropped.size"));
        guest.Send(NoHeader, NetGuest.Frame(622));
        Assert.Equal(1, guest.Counter("tx.packets"));
        guest.Device.Change(own, 1500);
        guest.Send(NoHeader, NetGuest.Frame(1514));
        Assert.Equal(2, guest.Counter("tx.packets"));
        Assert.Throws<ArgumentException>(() => guest.Device.Change(own, 67));
        Assert.Throws<ArgumentException>(() => guest.Device.Change(own, 65536));
    }

    [SkippableTheory]
    [InlineData(false)]
    [InlineData(true)]
    public void An_mtu_that_may_change_is_not_told_by_the_device(bool mayChange)
    {
        Skip.If(TapNamespace.Missing is not null, TapNamespace.Missing);
        using TapNamespace tap = TapNamespace.Create();
        using NetDevice device = new("net0", 1);
        device.Attach(tap.Taps, new NetInterface(MacAddress.Read(NetGuest.Mac), 1500, default, default, mayChange));
        Assert.Equal(mayChange, (device.DeviceFeatures & NetFeature.Mtu) == 0);
    }

    [SkippableTheory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_link_is_up_at_first_unless_it_is_to_be_brought_up_later(bool down)
    {
        Skip.If(TapNamespace.Missing is not null, TapNamespace.Missing);
        using TapNamespace tap = TapNamespace.Create();
        using NetDevice device = new("net0", 1);
        device.Attach(tap.Taps, new NetInterface(MacAddress.Read(NetGuest.Mac), 1500, default, default, LinkDown: down));
        Assert.Equal(down ? 0 : 1, Status(device));
        device.SetLink(true);
        Assert.Equal(1, Status(device));
        device.SetLink(false);
        Assert.Equal(0, Status(device));

        // virtio 1.2, 5.1.4: the status follows the address.
        static int Status(NetDevice device)
        {
            byte[] config = new byte[8];
            device.ReadConfig(0, config);
            return config[6];
        }
    }

    [SkippableFact]
    public void A_window_is_free_again_after_its_interface_was_taken_away()
    {
        Skip.If(TapNamespace.Missing is not null, TapNamespace.Missing);
        using TapNamespace first = TapNamespace.Create();
        using TapNamespace second = TapNamespace.Create(queues: 2);
        using NetDevice device = new("net0", 2);
        NetInterface settings = new(MacAddress.Read(NetGuest.Mac), 1500, default, default);
        device.Attach(first.Taps, settings);
        device.Detach();
        Assert.Equal((0u, 0ul, false), (device.DeviceId, device.DeviceFeatures, device.IsAttached));
        Assert.True(first.Taps[0].IsClosed);
        device.Attach(second.Taps, settings with { Mac = MacAddress.Read(Other) });
        Assert.Equal(1u, device.DeviceId);
        Assert.NotEqual(0ul, device.DeviceFeatures & NetFeature.Mq);
        byte[] config = new byte[12];
        device.ReadConfig(0, config);
        Assert.Equal(Other, config[..6]);
        Assert.Equal(2, config[8]);
    }

    [SkippableFact]
    public void Flows_of_several_pairs_lose_nothing_and_keep_their_order()
    {
        Skip.If(TapNamespace.Missing is not null, TapNamespace.Missing);
        const int Pairs = 2, PerFlow = 400;
        using NetGuest guest = new(queues: Pairs, without: NetFeature.GuestOffloads);
        Assert.Equal(0, guest.Control(4, 0, Pairs, 0));
        DriverQueue[] transmit = [guest.Driver.Queues[1], guest.Driver.Queues[3]];
        ulong[] memory = [guest.Driver.Allocate(200), guest.Driver.Allocate(200)];
        List<byte[]>[] arrived = [[], []];

        // Both pairs' threads work at once: the frames of a flow, numbered, are offered one by one to the flow's own queue.
        for (int i = 0; i < PerFlow; i++)
        {
            for (int flow = 0; flow < Pairs; flow++)
            {
                byte[] frame = NetGuest.Frame(100);
                (frame[14], frame[15], frame[16]) = ((byte)flow, (byte)i, (byte)(i >> 8));
                NoHeader.CopyTo(guest.Driver.Span(memory[flow], 12));
                frame.CopyTo(guest.Driver.Span(memory[flow] + 12, 100));
                transmit[flow].Add(new Segment(memory[flow], 112, false));
                transmit[flow].Notify();
            }

            for (int flow = 0; flow < Pairs; flow++)
            {
                DriverQueue queue = transmit[flow];
                guest.Wait(() => queue.TryTakeUsed(out _, out _), $"frame {i} of flow {flow} is taken");
            }

            while (guest.Tap.TryReceive() is { } got)
            {
                arrived[got[14]].Add(got);
            }
        }

        for (int flow = 0; flow < Pairs; flow++)
        {
            Assert.Equal(Enumerable.Range(0, PerFlow), arrived[flow].Select(f => f[15] | (f[16] << 8)));
        }

        Assert.Equal(Pairs * PerFlow, guest.Counter("tx.packets"));
    }
}
