using System.Buffers.Binary;
using System.Diagnostics;
using System.Globalization;
using MicroVm.EndToEnd.Support;
using MicroVm.Tests.Shared.Virtio;
using MicroVm.VmmControl;

namespace MicroVm.EndToEnd;

/// <summary>
/// A guest kernel that attacks its network interface, a tap: the host's kernel gets frames only that are right, as it is to
/// understand them, and the VMM neither ends nor grows.
/// </summary>
public sealed class HostileNetworkTests
{
    private const string Mac = "02:00:5e:10:00:01";
    private const int Mtu = 1500;
    private const int LinkBytes = 14;
    private const int TagBytes = 4;
    private const long ResidentBound = 48 << 10;
    private const int DescriptorBound = 256;

    // Eight rules of each of two devices and their counts, and one more for the process.
    private const int LinesBound = (2 * 9) + 1;
    private static readonly byte[] MacBytes = [2, 0, 0x5e, 0x10, 0, 1];

    // As the guest sends them among those that are wrong, in this order.
    private static readonly WireFrame[] RightFrames =
    [
        new(1, 1, 1460, 34, 16, 3054),
        new(1, 4, 1440, 54, 16, 3074),
        new(1, 0, 0, 34, 16, 114),
        new(0, 0, 0, 0, 0, 60),
        new(1, 1, 1000, 34, 16, 3054),
        new(0, 0, 0, 0, 0, 14),
        new(0, 0, 0, 0, 0, 60),
        new(0, 0, 0, 0, 0, 1514),
        new(0, 0, 0, 0, 0, 1522),
        new(1, 1, 1460, 34, 16, 65549),
        new(0, 0, 0, 0, 0, 60),
        new(0, 0, 0, 0, 0, 61),
    ];

    [SkippableFact]
    public void TheHostsKernelGetsNoneOfTheFramesThatAreWrong()
    {
        using TapNamespace tap = MakeTap();
        using BareVm vm = Start(tap, "attack=frames");
        vm.WaitForSerial("DONE");
        Dictionary<string, long> said = Said(vm);
        Assert.Equal(["START", "HEADER", "SIZE", "SOURCE", "REFUSED", "RIGHT", "DONE"], said.Keys);
        Assert.Equal(RightFrames.Length, said["RIGHT"]);
        Assert.All(["HEADER", "SIZE", "SOURCE", "REFUSED"], what => Assert.True(said[what] > 10, what));

        List<WireFrame> received = TakeUpTo(tap, RightFrames[^1]);
        Assert.Equal(RightFrames, received);

        IReadOnlyDictionary<string, long> counters = vm.Ask(ControlOperation.Info).Info!.Counters;
        Assert.Equal(said["HEADER"], counters["net0.tx.dropped.header"]);
        Assert.Equal(said["SIZE"], counters["net0.tx.dropped.size"]);
        Assert.Equal(said["SOURCE"], counters["net0.tx.dropped.source"]);
        Assert.Equal(said["REFUSED"], counters["net0.ctrl.refused"]);
        Assert.Equal(RightFrames.Sum(f => f.Length), counters["net0.tx.bytes"]);
        Assert.Equal(0, counters["net0.tx.errors"]);
        Assert.Equal(0, counters["net0.needs_reset"]);
        AssertBounded(vm);
        Assert.Equal("", Stop(vm));
        Assert.Empty(Take(tap));
    }

    [SkippableFact]
    public void ABrokenRingStopsItsDeviceAlone()
    {
        using TapNamespace tap = MakeTap();
        using BareVm vm = Start(tap, "attack=rings");
        vm.WaitForSerial("START");
        int threads = vm.Threads();
        vm.WaitForSerial("DONE");
        Dictionary<string, long> said = Said(vm);
        Assert.Equal(["START", "STOPPED", "RIGHT", "DONE"], said.Keys);
        Assert.True(said["STOPPED"] > 100, vm.Serial);

        // After each stop a frame, then any number before resets, then the last; none of those behind a broken ring's end.
        WireFrame last = new(0, 0, 0, 0, 0, 61);
        List<WireFrame> received = TakeUpTo(tap, last);
        Assert.All(received[..^1], f => Assert.Equal(new WireFrame(0, 0, 0, 0, 0, 60), f));
        Assert.InRange(received.Count, said["RIGHT"], int.MaxValue);

        IReadOnlyDictionary<string, long> counters = vm.Ask(ControlOperation.Info).Info!.Counters;
        Assert.Equal(said["STOPPED"], counters["net0.needs_reset"]);
        Assert.Equal(0, counters["rng.needs_reset"]);
        Assert.Equal(0, counters["net0.tx.errors"]);
        Assert.InRange(vm.Threads(), 1, threads + 2);
        AssertBounded(vm);
        AssertLog(Stop(vm));
    }

    [SkippableFact]
    public void AFloodWithoutEndThatChangesUnderWayBringsNothingWrongOut()
    {
        using TapNamespace tap = MakeTap();
        using BareVm vm = Start(tap, "attack=flood");
        int threads = vm.Threads();
        Random random = new(1);
        bool up = false;
        int received = 0;
        string[] due = ["tx.dropped.header", "tx.dropped.size", "tx.dropped.source", "tx.packets", "rx.packets", "ctrl.refused", "violations", "needs_reset"];
        string[] missing = due;
        Stopwatch watch = Stopwatch.StartNew();
        while (watch.Elapsed < TimeSpan.FromSeconds(4) || received < 100 || missing.Length > 0)
        {
            Assert.True(watch.Elapsed < Installation.RunDeadline, $"{received} frames of the flood came out; no {string.Join(", ", missing)}");
            for (int i = 0; i < 50; i++)
            {
                byte[] frame = new byte[10 + random.Next(LinkBytes, LinkBytes + Mtu)];
                random.NextBytes(frame.AsSpan(10));
                MacBytes.CopyTo(frame, 10);
                _ = tap.Send(frame, wait: false);
            }

            List<WireFrame> frames = Take(tap);
            Assert.All(frames, f => Assert.True(f.IsSound, f.ToString()));
            received += frames.Count;
            Assert.Null(vm.Ask(new ControlRequest { Operation = ControlOperation.SetNetLink, Up = up = !up }).Error);
            ControlResponse answer = vm.Ask(ControlOperation.Info);
            Assert.Equal("running", answer.Info!.State);
            missing = [.. due.Where(d => answer.Info.Counters["net0." + d] == 0)];
            Assert.InRange(vm.Threads(), 1, threads + 3);
            AssertBounded(vm);
            Thread.Sleep(20);
        }

        Assert.Null(vm.Ask(ControlOperation.Pause).Error);
        Assert.Equal("paused", vm.Ask(ControlOperation.Info).Info!.State);
        Assert.Null(vm.Ask(ControlOperation.Resume).Error);
        AssertLog(Stop(vm));
    }

    private static TapNamespace MakeTap()
    {
        Installation.RequireKvm();
        Skip.If(TapNamespace.Missing is not null, TapNamespace.Missing);
        return TapNamespace.Create(queues: 2, Mtu, headers: true);
    }

    private static BareVm Start(TapNamespace tap, string attack)
    {
        BareVm vm = BareVm.Start(_ => new VmmConfig
        {
            Kernel = FileReference.FromPath(Installation.GuestProgram("hostile-net.kernel")),
            CommandLine = attack,
            MemoryMiB = 64,
            Net = [new NetConfig { QueuePairs = 2 }],
        });
        vm.WaitForSerial("START");
        ControlRequest attach = new() { Operation = ControlOperation.AttachNet, Interface = new NetAttachment { Mac = Mac, Mtu = Mtu } };
        Assert.Null(vm.Ask(attach, tap.Taps).Error);
        return vm;
    }

    /// <summary>Lines of a word and a number, or of a word.</summary>
    private static Dictionary<string, long> Said(BareVm vm) => vm.Serial.Split('\n', StringSplitOptions.RemoveEmptyEntries)
        .Select(l => l.LastIndexOf(' ') is > 0 and int at ? (l[..at], long.Parse(l[(at + 1)..], CultureInfo.InvariantCulture)) : (l, 0))
        .ToDictionary();

    private static List<WireFrame> Take(TapNamespace tap)
    {
        List<WireFrame> frames = [];
        while (tap.TryReceive() is { } bytes)
        {
            frames.Add(WireFrame.Read(bytes));
        }

        return frames;
    }

    private static List<WireFrame> TakeUpTo(TapNamespace tap, WireFrame last)
    {
        List<WireFrame> frames = [];
        DetachedContainer.Eventually(
            () =>
            {
                frames.AddRange(Take(tap));
                return frames.Contains(last);
            },
            "the last right frame comes out");
        return frames;
    }

    private static void AssertBounded(BareVm vm)
    {
        Assert.InRange(vm.AnonymousKiB(), 0, ResidentBound);
        Assert.InRange(vm.Descriptors(), 0, DescriptorBound);
    }

    private static string Stop(BareVm vm)
    {
        Assert.Null(vm.Ask(ControlOperation.Stop).Error);
        (VmmExitCode code, _, string error) = vm.Wait();
        Assert.Equal(VmmExitCode.Stopped, code);
        return error;
    }

    private static void AssertLog(string error)
    {
        Assert.Contains("the guest's driver broke a rule", error, StringComparison.Ordinal);
        Assert.DoesNotContain("is gone", error, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", error, StringComparison.Ordinal);
        Assert.InRange(error.Split('\n').Length, 1, LinesBound);
    }

    /// <summary>A frame that left the VM, as the host's kernel understood it.</summary>
    private readonly record struct WireFrame(byte Flags, byte Gso, ushort GsoSize, ushort CsumStart, ushort CsumOffset, int Length)
    {
        private const int HeaderBytes = 10;

        private byte[] Head { get; init; } = [];

        /// <summary>From the guest's address, of a size that the link has, and what the kernel is to complete is within it.</summary>
        public bool IsSound =>
            Head.AsSpan(6, 6).SequenceEqual(MacBytes)
            && (Flags == 0 || (Flags == 1 && CsumStart >= LinkBytes + 20 && CsumStart + CsumOffset + 2 <= Length))
            && (Kind == 0 ? Length <= Mtu + LinkBytes + (2 * TagBytes) : Flags == 1 && GsoSize is >= 8 and <= Mtu - 40 && CsumOffset == 16 && IsSegments);

        // Without the flag of ECN.
        private int Kind => Gso & 0x7f;

        private bool IsSegments => Kind switch
        {
            1 => Head[12..14] is [8, 0] && Head[14] >> 4 == 4 && CsumStart == LinkBytes + ((Head[14] & 0xf) * 4) && Head[23] == 6,
            4 => Head[12..14] is [0x86, 0xdd] && Head[14] >> 4 == 6,
            _ => false,
        };

        public bool Equals(WireFrame other) =>
            (Flags, Gso, GsoSize, CsumStart, CsumOffset, Length) == (other.Flags, other.Gso, other.GsoSize, other.CsumStart, other.CsumOffset, other.Length);

        public override int GetHashCode() => HashCode.Combine(Flags, Gso, GsoSize, CsumStart, CsumOffset, Length);

        public static WireFrame Read(byte[] bytes)
        {
            static ushort Word(byte[] bytes, int at) => BinaryPrimitives.ReadUInt16LittleEndian(bytes.AsSpan(at));
            return new WireFrame(bytes[0], bytes[1], Word(bytes, 4), Word(bytes, 6), Word(bytes, 8), bytes.Length - HeaderBytes)
            {
                Head = bytes[HeaderBytes..Math.Min(bytes.Length, HeaderBytes + 128)],
            };
        }
    }
}
