using System.Diagnostics;
using System.Runtime.InteropServices;
using MicroVm.Vmm.Devices.Net;

namespace MicroVm.Tests.Shared.Virtio;

/// <summary>A guest's network driver at frame level, over a device on a tap in a namespace of its own.</summary>
internal sealed class NetGuest : IDisposable
{
    public static readonly byte[] Mac = [2, 0, 0x5e, 0x10, 0, 1];
    private readonly Dictionary<ushort, Segment[]> _posted = [];
    private readonly ulong _tx;
    private readonly ulong _control;
    private readonly int _bufferLength;

    public NetGuest(
        ulong without = 0, ulong? features = null, int queues = 1, int mtu = 1500, int bufferLength = 1536, int buffers = 64,
        NetRateLimit receive = default, NetRateLimit transmit = default, bool eventIndex = true)
    {
        Tap = TapNamespace.Create(queues, mtu);
        Device = new NetDevice("net0", queues);
        Device.Attach(Tap.Taps, new NetInterface(MacAddress.Read(Mac), mtu, receive, transmit));
        Driver = new GuestDriver(Device, features: features ?? (Device.DeviceFeatures & ~without), eventIndex: eventIndex);
        _tx = Driver.Allocate(1 << 17);
        _control = Driver.Allocate(4096);
        _bufferLength = bufferLength;
        Driver.Activate();
        AddBuffers(buffers);
    }

    public TapNamespace Tap { get; }

    public NetDevice Device { get; }

    public GuestDriver Driver { get; }

    public long Counter(string name)
    {
        long value = -1;
        Device.CollectCounters((n, v) => value = n == "net0." + name ? v : value);
        return value;
    }

    /// <summary>An Ethernet frame from the guest's address, or another.</summary>
    public static byte[] Frame(int length, byte[]? source = null, byte[]? destination = null, int type = 0x88b5)
    {
        byte[] frame = new byte[length];
        Random.Shared.NextBytes(frame);
        (destination ?? [0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).CopyTo(frame, 0);
        (source ?? Mac).CopyTo(frame, 6);
        frame[12] = (byte)(type >> 8);
        frame[13] = (byte)type;
        return frame;
    }

    /// <summary>Offers more receive buffers.</summary>
    public void AddBuffers(int count)
    {
        for (int i = 0; i < count; i++)
        {
            Post(Driver.Allocate((ulong)_bufferLength));
        }

        Driver.Queues[0].Notify();
    }

    /// <summary>Sends header and frame as one chain of <paramref name="pieces"/> segments, and waits until it is used.</summary>
    public void Send(ReadOnlySpan<byte> header, ReadOnlySpan<byte> frame, int pieces = 1)
    {
        Offer(header, frame, pieces);
        Wait(() => Driver.Queues[1].TryTakeUsed(out _, out _), "the frame is taken");
    }

    /// <summary>Sends without waiting.</summary>
    public void Offer(ReadOnlySpan<byte> header, ReadOnlySpan<byte> frame, int pieces = 1)
    {
        header.CopyTo(Driver.Span(_tx, header.Length));
        frame.CopyTo(Driver.Span(_tx + (ulong)header.Length, frame.Length));
        int length = header.Length + frame.Length;
        List<Segment> segments = [];
        int at = 0;
        for (int i = 0; i < pieces; i++)
        {
            int n = i == pieces - 1 ? length - at : Math.Min(length - at, Math.Max(1, (length / pieces) - 3));
            segments.Add(new Segment(_tx + (ulong)at, (uint)n, false));
            at += n;
        }

        Driver.Queues[1].Add([.. segments]);
        Driver.Queues[1].Notify();
    }

    /// <summary>The next received frame with its header; null when none comes within the time.</summary>
    public byte[]? Receive(int milliseconds = 5000)
    {
        Stopwatch time = Stopwatch.StartNew();
        while (Driver.Queues[0].UsedCount == 0)
        {
            if (time.ElapsedMilliseconds > milliseconds || Driver.NeedsReset is not null)
            {
                return null;
            }

            Thread.Sleep(1);
        }

        List<byte> bytes = [];
        int buffers = 1;
        for (int i = 0; i < buffers; i++)
        {
            if (!Driver.Queues[0].TryTakeUsed(out ushort head, out uint written))
            {
                throw new InvalidOperationException("the buffers of a frame were not shown together");
            }

            Segment buffer = _posted[head][0];
            bytes.AddRange(Driver.Span(buffer.Gpa, (int)written));
            if (i == 0)
            {
                buffers = MemoryMarshal.Read<ushort>(bytes.ToArray().AsSpan(10));
            }

            Post(buffer.Gpa);
        }

        Driver.Queues[0].Notify();
        return [.. bytes];
    }

    /// <summary>A command on the control queue; returns its answer.</summary>
    public byte Control(byte type, byte command, params ReadOnlySpan<byte> data)
    {
        DriverQueue queue = Driver.Queues[^1];
        Span<byte> memory = Driver.Span(_control, 4096);
        memory[0] = type;
        memory[1] = command;
        data.CopyTo(memory[2..]);
        memory[4095] = 0xff;
        queue.Add(new Segment(_control, 2, false), new Segment(_control + 2, (uint)data.Length, false), new Segment(_control + 4095, 1, true));
        queue.Kick.Signal();
        queue.Notify();
        Driver.TurnUntil(() => queue.TryTakeUsed(out _, out _), "the command is answered");
        return Driver.Span(_control, 4096)[4095];
    }

    public void Wait(Func<bool> condition, string what)
    {
        Stopwatch time = Stopwatch.StartNew();
        while (!condition())
        {
            if (time.Elapsed > TimeSpan.FromSeconds(10))
            {
                throw new TimeoutException($"did not happen: {what}; device: {Driver.NeedsReset ?? "fine"}");
            }

            Thread.Sleep(0);
        }
    }

    public void Dispose()
    {
        Driver.Dispose();
        Tap.Dispose();
    }

    private void Post(ulong gpa)
    {
        Segment segment = new(gpa, (uint)_bufferLength, true);
        _posted[Driver.Queues[0].Add(segment)] = [segment];
    }
}
