using FsCheck;
using FsCheck.Fluent;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Memory;
using MicroVm.Tests.Shared;
using MicroVm.Tests.Shared.Virtio;
using MicroVm.Virtio;
using MicroVm.Vmm.Devices.Balloon;
using MicroVm.Vmm.Devices.Block;
using MicroVm.Vmm.Devices.Console;
using MicroVm.Vmm.Devices.Entropy;
using MicroVm.Vmm.Devices.Mem;
using MicroVm.Vmm.Devices.Net;
using MicroVm.Vmm.Devices.Pmem;
using MicroVm.Vmm.Devices.Vsock;
using MicroVm.Vmm.Tests.Boot;
using Xunit;

namespace MicroVm.Vmm.Tests.Devices;

/// <summary>
/// Every device on rings of random descriptors, with a full queue of requests or a jumping index: it serves or asks to be
/// reset, throws nothing, and works for the next driver.
/// </summary>
public sealed class HostileRingTests
{
    [Fact]
    public void Entropy() => Run(_ => new EntropyDevice(), guest =>
    {
        guest.Queues[0].Add(new Segment(guest.Allocate(16), 16, true));
        guest.Queues[0].Notify();
        guest.Turn();
        return guest.Queues[0].UsedCount == 1;
    });

    [Fact]
    public void Balloon() => Run(_ => new BalloonDevice(), guest =>
    {
        guest.Queues[2].Add(new Segment(guest.Allocate(4096, 4096), 4096, true));
        guest.Queues[2].Notify();
        guest.TurnUntil(() => guest.Queues[2].UsedCount == 1, "a report is taken");
        return true;
    });

    [Fact]
    public void Mem()
    {
        using GuestMemory memory = GuestMemory.Create(1 << 20);
        Run(_ => new MemDevice(MemTests.Reserved(memory), _ => { }), guest =>
        {
            guest.Queues[0].Add(new Segment(guest.Allocate(24), 24, false), new Segment(guest.Allocate(10), 10, true));
            guest.Queues[0].Notify();
            guest.TurnUntil(() => guest.Queues[0].UsedCount == 1, "a request is answered");
            return true;
        });
    }

    [Fact]
    public void Pmem()
    {
        using SafeFd file = ElfBuilder.Memfd(new byte[1]);
        Run(_ => new PmemDevice("pmem0", new FileImage(file), 1ul << 32), guest =>
        {
            guest.Queues[0].Add(new Segment(guest.Allocate(4), 4, false), new Segment(guest.Allocate(4), 4, true));
            guest.Queues[0].Notify();
            guest.Turn();
            return guest.Queues[0].UsedCount == 1;
        });
    }

    [Fact]
    public void Console() => Run(
        _ => new ConsoleDevice(Open("/dev/zero", Libc.O_RDONLY), Open("/dev/null", Libc.O_WRONLY)),
        guest =>
        {
            guest.Queues[1].Add(new Segment(guest.Allocate(16), 16, false));
            guest.Queues[1].Notify();
            guest.Turn();
            return guest.Queues[1].UsedCount == 1;
        });

    [Fact]
    public void Vsock()
    {
        string directory = Directory.CreateTempSubdirectory("vsock-test-").FullName;
        Run(loop => new VsockDevice(42, Path.Combine(directory, "v.sock"), loop), guest =>
        {
            guest.Queues[1].Add(new Segment(guest.Allocate(16), 16, false));
            guest.Queues[1].Notify();
            guest.Turn();
            return guest.Queues[1].UsedCount == 1;
        });
        Directory.Delete(directory, recursive: true);
    }

    [Fact]
    public void Block()
    {
        string image = Path.GetTempFileName();
        File.WriteAllBytes(image, new byte[1 << 20]);
        Run(_ => new BlockDevice("blk0", Open(image, Libc.O_RDWR), readOnly: false, ""), guest =>
        {
            guest.Queues[0].Add(new Segment(guest.Allocate(16), 16, false), new Segment(guest.Allocate(1), 1, true));
            guest.Queues[0].Notify();
            guest.TurnUntil(() => guest.Queues[0].UsedCount == 1, "the disk answers");
            return true;
        });
        File.Delete(image);
    }

    [SkippableFact]
    public void Net()
    {
        Skip.If(TapNamespace.Missing is not null, TapNamespace.Missing);
        using TapNamespace tap = TapNamespace.Create();
        Run(
            _ =>
            {
                NetDevice device = new("net0", 1);
                device.Attach(tap.Taps, new NetInterface(MacAddress.Read(NetGuest.Mac), 1500, default, default));
                return device;
            },
            guest =>
            {
                guest.Queues[1].Add(new Segment(guest.Allocate(100), 100, false));
                guest.Queues[1].Notify();
                guest.TurnUntil(() => guest.Queues[1].UsedCount == 1, "a frame is taken");
                return true;
            });
    }

    private static void Run(Func<EventLoop, VirtioDevice> make, Func<GuestDriver, bool> works)
    {
        using EventLoop loop = new();
        using GuestDriver guest = new(make(loop), loop, queueSize: 16);
        int resets = 0;
        Prop.ForAll(RandomRings.All.ToArbitrary(), rings =>
        {
            guest.Activate();
            foreach (DriverQueue queue in guest.Queues)
            {
                int size = queue.Layout.Size;
                rings.Table.AsSpan(0, size).CopyTo(queue.Table);
                rings.Available.AsSpan(0, size).CopyTo(queue.AvailableRing[2..]);
                Volatile.Write(ref queue.AvailableRing[1], rings.Jump);
                queue.Kick.Signal();
            }

            // A hostile ring may ask for much, but a turn does a bounded part of it.
            for (int i = 0; i < 50; i++)
            {
                _ = loop.RunOnce(0);
            }

            resets += guest.NeedsReset is null ? 0 : 1;
            guest.Reset();
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(300));
        Assert.InRange(resets, 1, 300);
        guest.Activate();
        Assert.True(works(guest), guest.NeedsReset);
    }

    private static SafeFd Open(string path, int flags) =>
        SafeFd.From(Libc.openat(Libc.AT_FDCWD, path, flags | Libc.O_CLOEXEC, 0), "open", path);
}
