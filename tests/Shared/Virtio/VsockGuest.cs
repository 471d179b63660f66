using System.Net.Sockets;
using System.Runtime.InteropServices;
using MicroVm.Linux;
using MicroVm.Vmm.Devices.Vsock;

namespace MicroVm.Tests.Shared.Virtio;

/// <summary>A packet as the guest got it.</summary>
internal sealed record VsockPacket(VsockHeader Header, byte[] Payload)
{
    public override string ToString() =>
        $"{Header.Operation} {Header.SourcePort}->{Header.DestinationPort} len {Header.Length} flags {Header.Flags}";
}

/// <summary>A guest's vsock driver at packet level, over a device with its sockets in a directory of its own.</summary>
internal sealed class VsockGuest : IDisposable
{
    public const uint Cid = 42;
    private const int MaxPayload = 64 * 1024;
    private readonly string _directory = Directory.CreateTempSubdirectory("vsock-test-").FullName;
    private readonly Queue<ulong> _txBuffers = new();
    private readonly Dictionary<ushort, ulong> _rxByHead = [];
    private readonly Dictionary<ushort, ulong> _txByHead = [];
    private readonly int _rxLength;
    private readonly bool _split;

    public VsockGuest(
        bool activate = true, int rxBuffers = 64, int rxLength = VsockHeader.Size + 4096, bool split = false, long? timeLimit = null)
    {
        _rxLength = rxLength;
        _split = split;
        Path = System.IO.Path.Combine(_directory, "v.sock");
        Device = new VsockDevice(Cid, Path, Loop)
        {
            HandshakeMilliseconds = timeLimit ?? VsockLimits.HandshakeMilliseconds,
            RequestMilliseconds = timeLimit ?? VsockLimits.RequestMilliseconds,
        };
        Driver = new GuestDriver(Device, Loop, memory: 64 << 20);
        for (int i = 0; i < Driver.Queues[1].Layout.Size; i++)
        {
            _txBuffers.Enqueue(Driver.Allocate(VsockHeader.Size + MaxPayload));
        }

        if (activate)
        {
            Activate(rxBuffers);
        }
    }

    public EventLoop Loop { get; } = new();

    public string Path { get; }

    public VsockDevice Device { get; }

    public GuestDriver Driver { get; }

    /// <summary>Packets that arrived and were not looked at.</summary>
    public Queue<VsockPacket> Inbox { get; } = new();

    /// <summary>Refill receive buffers as they are used.</summary>
    public bool Refill { get; set; } = true;

    public void Activate(int rxBuffers = 64)
    {
        Driver.Activate();
        Post(rxBuffers);
        for (int i = 0; i < 8; i++)
        {
            Driver.Queues[2].Add(new Segment(Driver.Allocate(4), 4, true));
        }

        Driver.Queues[2].Notify();
        Driver.Turn();
    }

    /// <summary>Gives the device receive buffers.</summary>
    public void Post(int count)
    {
        for (int i = 0; i < count; i++)
        {
            Post(Driver.Allocate((ulong)_rxLength));
        }

        Driver.Queues[0].Notify();
    }

    /// <summary>Sends a packet as it is; waits for nothing. False when the queue is full.</summary>
    public bool TrySend(VsockHeader header, ReadOnlySpan<byte> payload = default, int? chainLength = null)
    {
        Reap();
        if (!_txBuffers.TryDequeue(out ulong at) || Driver.Queues[1].FreeDescriptors < 2)
        {
            return false;
        }

        MemoryMarshal.AsBytes(new Span<VsockHeader>(ref header)).CopyTo(Driver.Span(at, VsockHeader.Size));
        payload.CopyTo(Driver.Span(at + VsockHeader.Size, payload.Length));
        uint length = (uint)(chainLength ?? VsockHeader.Size + payload.Length);
        ushort head = _split && length > VsockHeader.Size
            ? Driver.Queues[1].AddIndirect([
                new Segment(at, VsockHeader.Size, false),
                new Segment(at + VsockHeader.Size, length - VsockHeader.Size, false)])
            : Driver.Queues[1].Add(new Segment(at, length, false));
        _txByHead[head] = at;
        Driver.Queues[1].Notify();
        return true;
    }

    /// <summary>Sends a well-formed packet and turns the loop.</summary>
    public void Send(
        VsockOperation operation, uint guestPort, uint hostPort, ReadOnlySpan<byte> payload = default, uint flags = 0,
        uint bufferAllocation = 256 * 1024, uint forwardCount = 0)
    {
        VsockHeader header = Header(operation, guestPort, hostPort, payload.Length);
        header.Flags = flags;
        header.BufferAllocation = bufferAllocation;
        header.ForwardCount = forwardCount;
        Send(header, payload);
    }

    /// <summary>Sends a packet and turns the loop.</summary>
    public void Send(VsockHeader header, ReadOnlySpan<byte> payload = default, int? chainLength = null)
    {
        if (!TrySend(header, payload, chainLength))
        {
            throw new InvalidOperationException("the transmit queue is full");
        }

        Turn();
    }

    public static VsockHeader Header(VsockOperation operation, uint guestPort, uint hostPort, int length = 0) => new()
    {
        SourceCid = Cid,
        DestinationCid = 2,
        SourcePort = guestPort,
        DestinationPort = hostPort,
        Length = (uint)length,
        Type = VsockLimits.TypeStream,
        Operation = operation,
        BufferAllocation = 256 * 1024,
    };

    /// <summary>Turns the loop until it is idle, and collects what arrived.</summary>
    public void Turn()
    {
        do
        {
            Driver.Turn();
        }
        while (Collect());
        Reap();
    }

    /// <summary>The next packet, which must be there.</summary>
    public VsockPacket Expect(VsockOperation operation)
    {
        Turn();
        if (!Inbox.TryDequeue(out VsockPacket? packet))
        {
            throw new InvalidOperationException($"no packet where {operation} was expected; device: {Driver.NeedsReset ?? "fine"}");
        }

        return packet.Header is { SourceCid: 2, DestinationCid: Cid } && packet.Header.Operation == operation
            ? packet
            : throw new InvalidOperationException($"{packet} where {operation} was expected");
    }

    /// <summary>No packet is waiting.</summary>
    public void ExpectNothing()
    {
        Turn();
        if (Inbox.TryPeek(out VsockPacket? packet))
        {
            throw new InvalidOperationException($"{packet} where nothing was expected");
        }
    }

    /// <summary>A host client, connected to the device's socket; non-blocking.</summary>
    public Socket Client(string? line = null)
    {
        Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        socket.Connect(new UnixDomainSocketEndPoint(Path));
        socket.Blocking = false;
        if (line is not null)
        {
            socket.Send(System.Text.Encoding.ASCII.GetBytes(line));
        }

        return socket;
    }

    /// <summary>A host server for the guest's connections to <paramref name="port"/>.</summary>
    public Socket Listen(uint port)
    {
        Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        socket.Bind(new UnixDomainSocketEndPoint($"{Path}_{port}"));
        socket.Listen(2048);
        return socket;
    }

    /// <summary>A host client whose stream to <paramref name="guestPort"/> is established.</summary>
    public (Socket Client, uint HostPort) Connect(uint guestPort, uint bufferAllocation = 256 * 1024)
    {
        Socket client = Client($"CONNECT {guestPort}\n");
        uint hostPort = Expect(VsockOperation.Request).Header.SourcePort;
        Send(VsockOperation.Response, guestPort, hostPort, bufferAllocation: bufferAllocation);
        string answer = System.Text.Encoding.ASCII.GetString(Read(client));
        return answer == $"OK {hostPort}\n" ? (client, hostPort) : throw new InvalidOperationException($"the client was told: {answer}");
    }

    /// <summary>Everything that a non-blocking socket has now.</summary>
    public static byte[] Read(Socket socket, int most = int.MaxValue)
    {
        MemoryStream all = new();
        byte[] buffer = new byte[Math.Min(most, 1 << 16)];
        while (all.Length < most)
        {
            int n = socket.Receive(buffer.AsSpan(0, (int)Math.Min(buffer.Length, most - all.Length)), SocketFlags.None, out SocketError error);
            if (error != SocketError.Success || n == 0)
            {
                break;
            }

            all.Write(buffer, 0, n);
        }

        return all.ToArray();
    }

    /// <summary>The peer of <paramref name="socket"/> has ended its direction.</summary>
    public static bool AtEnd(Socket socket)
    {
        Span<byte> one = stackalloc byte[1];
        int n = socket.Receive(one, SocketFlags.None, out SocketError error);
        return (error == SocketError.Success && n == 0) || error == SocketError.ConnectionReset;
    }

    /// <summary>Reads what <paramref name="socket"/> has into <paramref name="into"/>; true at its end.</summary>
    public static bool AtEnd(Socket socket, MemoryStream into)
    {
        byte[] buffer = new byte[8192];
        while (true)
        {
            int n = socket.Receive(buffer, SocketFlags.None, out SocketError error);
            if (error == SocketError.WouldBlock)
            {
                return false;
            }

            if (n == 0)
            {
                return true;
            }

            into.Write(buffer, 0, n);
        }
    }

    public long Counter(string name)
    {
        long value = -1;
        Device.CollectCounters((n, v) => value = n == name ? v : value);
        return value;
    }

    public void Dispose()
    {
        Device.Dispose();
        Driver.Dispose();
        Loop.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    private void Post(ulong at)
    {
        ushort head = _split
            ? Driver.Queues[0].AddIndirect([
                new Segment(at, VsockHeader.Size, true), new Segment(at + VsockHeader.Size, (uint)_rxLength - VsockHeader.Size, true)])
            : Driver.Queues[0].Add(new Segment(at, (uint)_rxLength, true));
        _rxByHead[head] = at;
    }

    private bool Collect()
    {
        bool any = false;
        while (Driver.Queues[0].TryTakeUsed(out ushort head, out uint written))
        {
            any = true;
            ulong at = _rxByHead[head];
            VsockHeader header = MemoryMarshal.Read<VsockHeader>(Driver.Span(at, VsockHeader.Size));
            if (written != VsockHeader.Size + header.Length)
            {
                throw new InvalidOperationException($"{written} bytes used for a packet of {header.Length}");
            }

            Inbox.Enqueue(new VsockPacket(header, Driver.Span(at + VsockHeader.Size, (int)header.Length).ToArray()));
            if (Refill)
            {
                Post(at);
                Driver.Queues[0].Notify();
            }
        }

        return any;
    }

    private void Reap()
    {
        while (Driver.Queues[1].TryTakeUsed(out ushort head, out _))
        {
            _txBuffers.Enqueue(_txByHead[head]);
        }
    }
}
