using System.Buffers.Binary;
using System.Runtime.InteropServices;
using FsCheck;
using FsCheck.Fluent;
using MicroVm.Memory;
using MicroVm.Tests.Shared.Virtio;
using MicroVm.Virtio;
using MicroVm.Vmm.Devices.Mem;
using Xunit;

namespace MicroVm.Vmm.Tests.Devices;

public sealed class MemTests : IDisposable
{
    private const ulong Gpa = 0x1_0000_0000;
    private const ulong Region = 512ul << 20;
    private const ulong Block = PluggedBlocks.BlockSize;
    private const int Blocks = (int)(Region / Block);
    private readonly GuestMemory _memory = GuestMemory.Create(1 << 20);
    private readonly List<GuestRegion> _shown = [];
    private readonly MemDevice _device;
    private readonly GuestDriver _guest;

    public MemTests()
    {
        _memory.Reserve(Gpa, Region);
        _device = new MemDevice(_memory, _shown.Add);
        _guest = new GuestDriver(_device);
        _guest.Activate();
    }

    public void Dispose()
    {
        _guest.Dispose();
        _memory.Dispose();
    }

    [Fact]
    public void Nothing_is_there_before_it_is_asked_for()
    {
        MemConfigSpace config = Config();
        Assert.Equal((Block, Gpa, Region, 0ul, 0ul, 0ul), (config.BlockSize, config.Address, config.RegionSize, config.UsableRegionSize, config.PluggedSize, config.RequestedSize));
        Assert.False(_memory.Contains(Gpa, 1));
        Assert.Equal(MemResponseType.Error, Ask(MemRequestType.Plug, Gpa, 1));
        Assert.Empty(_shown);
    }

    [Fact]
    public void What_is_asked_for_is_shown_plugged_and_given_back()
    {
        _device.Request(130ul << 20);
        Assert.Equal(1, _guest.ConfigInterrupts);
        MemConfigSpace config = Config();
        Assert.Equal((256ul << 20, 130ul << 20), (config.UsableRegionSize, config.RequestedSize));
        GuestRegion shown = Assert.Single(_shown);
        Assert.Equal((Gpa, 256ul << 20), (shown.Gpa, shown.Length));
        Assert.True(_memory.Contains(Gpa, 256ul << 20));
        Assert.False(_memory.Contains(Gpa, (256ul << 20) + 1));

        Assert.Equal(MemResponseType.Ack, Ask(MemRequestType.Plug, Gpa, 64));
        Assert.Equal(MemResponseType.Nack, Ask(MemRequestType.Plug, Gpa + (64 * Block), 2));
        Assert.Equal(MemResponseType.Ack, Ask(MemRequestType.Plug, Gpa + (64 * Block), 1));
        Assert.Equal(130ul << 20, Config().PluggedSize);
        Assert.True(_memory.TryWrite(Gpa + Block, 0x1234_5678));

        // More than before is a further piece behind the first; less leaves what is plugged to the guest.
        _device.Request(300ul << 20);
        Assert.Equal((Gpa + (256ul << 20), 128ul << 20), (_shown[1].Gpa, _shown[1].Length));
        _device.Request(2ul << 20);
        Assert.Equal(2, _shown.Count);
        Assert.Equal((384ul << 20, 130ul << 20, 2ul << 20), (Config().UsableRegionSize, Config().PluggedSize, Config().RequestedSize));
        Assert.Equal(MemResponseType.Nack, Ask(MemRequestType.Plug, Gpa + (70 * Block), 1));
        Assert.Equal(MemResponseType.Ack, Ask(MemRequestType.Unplug, Gpa + Block, 64));
        Assert.Equal(Block, Config().PluggedSize);
        Assert.True(_memory.TryRead(Gpa + Block, out int value));
        Assert.Equal(0, value);

        // A reset of the device is none of the memory (5.15.5.2).
        _guest.Reset();
        _guest.Activate();
        Assert.Equal(Block, Config().PluggedSize);
        Assert.Equal(MemResponseType.Ack, Ask(MemRequestType.UnplugAll, 0, 0));
        Assert.Equal(0ul, Config().PluggedSize);
    }

    // Requests of any numbers, against a set of blocks.
    [Fact]
    public void Answers_are_those_of_a_set_of_blocks()
    {
        Gen<ulong> addresses = Gen.OneOf(
            Gen.Choose(-2, Blocks + 2).Select(i => unchecked(Gpa + ((ulong)(long)i * Block))),
            Gen.Choose(-5, 5).Select(i => unchecked(Gpa + (ulong)(long)i)),
            Gen.Elements(0ul, ulong.MaxValue, unchecked(0ul - Block), 1ul << 63));
        Gen<(int Type, ulong At, int Count)> request =
            from type in Gen.Choose(0, 4)
            from at in addresses
            from count in Gen.OneOf(Gen.Choose(0, 8), Gen.Choose(0, Blocks), Gen.Constant(65535))
            select (type, at, count);
        Gen<(int Requested, (int Type, ulong At, int Count)[] Requests)> cases =
            from requested in Gen.Choose(0, Blocks) from requests in request.ArrayOf(30) select (requested, requests);
        HashSet<ulong> plugged = [];
        ulong usable = 0;
        Prop.ForAll(cases.ToArbitrary(), c =>
        {
            _device.Request((ulong)c.Requested * Block);
            usable = Math.Max(usable, (((ulong)c.Requested * Block) + MemDevice.Alignment - 1) & ~(MemDevice.Alignment - 1));
            foreach ((int type, ulong at, int count) in c.Requests)
            {
                bool right = count > 0 && at >= Gpa && (at - Gpa) % Block == 0 && ((UInt128)at - Gpa) + ((UInt128)count * Block) <= usable;
                ulong[] range = right ? [.. Enumerable.Range(0, count).Select(i => at + ((ulong)i * Block))] : [];
                MemResponseType expected = (MemRequestType)type switch
                {
                    MemRequestType.Plug => !right || range.Any(plugged.Contains) ? MemResponseType.Error
                        : plugged.Count + count > c.Requested ? MemResponseType.Nack : MemResponseType.Ack,
                    MemRequestType.Unplug => (ulong)count * Block > MemRequests.MaxUnplugBytes ? MemResponseType.Busy
                        : !right || !range.All(plugged.Contains) ? MemResponseType.Error : MemResponseType.Ack,
                    MemRequestType.UnplugAll => MemResponseType.Ack,
                    MemRequestType.State => right ? MemResponseType.Ack : MemResponseType.Error,
                    _ => MemResponseType.Error,
                };
                Assert.Equal(expected, Ask((MemRequestType)type, at, (ushort)count, out MemState state));
                switch ((MemRequestType)type)
                {
                    case MemRequestType.Plug when expected == MemResponseType.Ack:
                        plugged.UnionWith(range);
                        break;
                    case MemRequestType.Unplug when expected == MemResponseType.Ack:
                        plugged.ExceptWith(range);
                        break;
                    case MemRequestType.UnplugAll:
                        plugged.Clear();
                        break;
                    case MemRequestType.State when right:
                        Assert.Equal(range.All(plugged.Contains) ? MemState.Plugged : range.Any(plugged.Contains) ? MemState.Mixed : MemState.Unplugged, state);
                        break;
                }

                Assert.Equal((ulong)plugged.Count * Block, Config().PluggedSize);
            }
        }).Check(FsCheck.Config.QuickThrowOnFailure.WithMaxTest(60));
    }

    [Theory]
    [InlineData(23u, 10u)]
    [InlineData(24u, 9u)]
    public void A_request_that_is_cut_off_stops_the_device(uint readable, uint writable)
    {
        ulong at = _guest.Allocate(64);
        _guest.Queues[0].Add(new Segment(at, readable, false), new Segment(at + 32, writable, true));
        _guest.Queues[0].Notify();
        _guest.TurnUntil(() => _guest.NeedsReset is not null, "the device is stopped");
        Assert.Contains("5.15.6", _guest.NeedsReset, StringComparison.Ordinal);
    }

    /// <summary>Memory with a region of 512 MiB for a device.</summary>
    internal static GuestMemory Reserved(GuestMemory memory)
    {
        memory.Reserve(Gpa, Region);
        return memory;
    }

    private MemConfigSpace Config()
    {
        byte[] bytes = new byte[MemConfigSpace.Size];
        _device.ReadConfig(0, bytes);
        return MemoryMarshal.Read<MemConfigSpace>(bytes);
    }

    private MemResponseType Ask(MemRequestType type, ulong at, ushort count) => Ask(type, at, count, out _);

    private MemResponseType Ask(MemRequestType type, ulong at, ushort count, out MemState state)
    {
        ulong request = _guest.Allocate(0), answer = request + 64;
        Span<byte> bytes = _guest.Span(request, MemRequest.Size);
        bytes.Clear();
        BinaryPrimitives.WriteUInt16LittleEndian(bytes, (ushort)type);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes[8..], at);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes[16..], count);
        _guest.Queues[0].Add(new Segment(request, MemRequest.Size, false), new Segment(answer, MemResponse.Size, true));
        _guest.Queues[0].Notify();
        _guest.TurnUntil(() => _guest.Queues[0].UsedCount == 1, "the request is answered");
        Assert.True(_guest.Queues[0].TryTakeUsed(out _, out uint written));
        Assert.Equal(((uint)MemResponse.Size, null), (written, _guest.NeedsReset));
        MemResponse response = MemoryMarshal.Read<MemResponse>(_guest.Span(answer, MemResponse.Size));
        state = response.State;
        return response.Type;
    }
}
