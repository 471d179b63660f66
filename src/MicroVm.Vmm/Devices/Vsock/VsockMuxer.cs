using System.Buffers.Text;
using MicroVm.Linux;
using MicroVm.Virtio;

namespace MicroVm.Vmm.Devices.Vsock;

/// <summary>
/// Brings packets to streams and streams to receive buffers: finds the stream that a packet means, carries out what the stream
/// decided, and keeps who is next in line. Everything in a packet comes from the guest and is checked.
/// </summary>
/// <remarks>Device thread only, but for <see cref="Count"/> and <see cref="Cid"/>.</remarks>
internal sealed class VsockMuxer : IStreamOwner, IDisposable
{
    private readonly VsockCounters _counters;
    private readonly Action _wake;
    private readonly byte[] _path;
    private readonly HostRingPool _rings = new();
    private readonly StreamTable _table;
    private readonly ReadyQueue _ready = new();
    private readonly ResetQueue _resets = new();
    private ulong _cid;

    /// <summary>Makes one without streams.</summary>
    /// <param name="cid">The guest's context id.</param>
    /// <param name="path">Path of the hybrid socket: a guest's connection to host port P goes to <c>path_P</c>.</param>
    /// <param name="listener">Where host clients connect, taken over.</param>
    /// <param name="loop">The device's loop.</param>
    /// <param name="counters">What is counted.</param>
    /// <param name="wake">Called when there may be something for the queues to do.</param>
    public VsockMuxer(ulong cid, byte[] path, SafeFd listener, EventLoop loop, VsockCounters counters, Action wake)
    {
        _cid = cid;
        _path = path;
        _counters = counters;
        _wake = wake;
        _table = new StreamTable(() => new VsockStream(this, loop, _rings, counters));
        Clients = new HostClients(listener, loop, this);
    }

    /// <summary>Host clients whose streams are not established yet.</summary>
    public HostClients Clients { get; }

    /// <summary>The guest's context id.</summary>
    public ulong Cid
    {
        get => Volatile.Read(ref _cid);
        set => Volatile.Write(ref _cid, value);
    }

    /// <summary>The guest's driver is up: it can be asked to accept.</summary>
    public bool IsActive { get; set; }

    /// <summary>How many streams are alive, for any thread.</summary>
    public long Count => _table.Count;

    /// <summary>A packet of the guest may be taken: each can ask for a reset (5.10.6.1).</summary>
    public bool TakesPackets => !_resets.IsFull;

    /// <summary>A stream may be opened.</summary>
    public bool CanOpen => !_table.IsFull && !_resets.IsFull;

    /// <summary>The guest knows of streams, or is to be told of the end of some.</summary>
    public bool HasFlows => _table.HasFlows || _resets.Count != 0;

    /// <summary>Something may wait for a receive buffer.</summary>
    public bool HasPackets => _resets.Count != 0 || !_ready.IsEmpty;

    /// <summary>Opens a stream for a host client; null when the host does not let its socket be watched.</summary>
    /// <param name="socket">The connection, taken over.</param>
    public VsockStream? TryOpenClient(SafeFd socket)
    {
        VsockStream stream = _table.Take();
        try
        {
            stream.OpenClient(socket, _table.NextBuffer);
        }
        catch (LinuxException)
        {
            socket.Dispose();
            _table.Recycle(stream);
            return null;
        }

        _table.Add(stream);
        return stream;
    }

    /// <inheritdoc/>
    public void OnHostReady(VsockStream stream) => Apply(stream, stream.OnHostReady());

    /// <summary>Asks the guest to accept a host client.</summary>
    public void Request(VsockStream stream)
    {
        stream.Request(_table.FreshHostPort());
        _table.AddFlow(stream);
        _counters.HostConnects++;
        Clients.StartRequest(stream);
        Schedule(stream);
    }

    /// <summary>Ends a host client that waited too long.</summary>
    public void TimeOut(VsockStream stream)
    {
        _counters.TimedOut++;
        Apply(stream, stream.GiveUp());
    }

    /// <summary>Takes a packet of the guest.</summary>
    public void Deliver(DescriptorChain chain, int headerBytes, in VsockHeader header)
    {
        if (headerBytes != VsockHeader.Size || header.SourceCid != _cid)
        {
            // Nobody to answer: without a header, or in another guest's name.
            _counters.Dropped++;
            return;
        }

        bool ours = header.DestinationCid == VsockLimits.HostCid && header.Type == VsockLimits.TypeStream;
        VsockStream? stream = ours ? _table.Find(header.DestinationPort, header.SourcePort) : null;
        if (header.Operation == VsockOperation.Reset)
        {
            // Never answered, so that resets cannot chase each other.
            if (stream is not null)
            {
                Apply(stream, stream.OnReset());
            }
        }
        else if (!ours || header.Length > chain.ReadableLength - VsockHeader.Size)
        {
            Violation(stream, header);
        }
        else if (stream is not null)
        {
            Apply(stream, stream.OnPacket(chain, header), header);
        }
        else if (header.Operation == VsockOperation.Request)
        {
            OnRequest(header);
        }
        else
        {
            // Not a violation: the guest may not have seen yet that the stream ended.
            QueueReset(header.DestinationCid, header.DestinationPort, header.SourcePort, header.Type);
        }
    }

    /// <summary>Who is next in line for a receive buffer.</summary>
    /// <param name="stream">The stream; null for a reset.</param>
    /// <returns>False when nobody has anything to send.</returns>
    public bool TryTakeSender(out VsockStream? stream)
    {
        stream = null;
        if (_resets.Count != 0)
        {
            return true;
        }

        while ((stream = _ready.Take()) is not null)
        {
            if (stream.State == VsockState.Closed)
            {
                _table.Recycle(stream);
            }
            else if (stream.CanSend)
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>Makes the packet of the oldest reset, which waits no more.</summary>
    public VsockHeader TakeReset()
    {
        _ = _resets.TryPeek(out PendingReset reset);
        _resets.Dequeue();
        _counters.ResetsSent++;
        return new VsockHeader
        {
            SourceCid = reset.HostCid,
            DestinationCid = _cid,
            SourcePort = reset.HostPort,
            DestinationPort = reset.GuestPort,
            Type = reset.Type,
            Operation = VsockOperation.Reset,
        };
    }

    /// <summary>Makes the stream's next packet; its payload is in <paramref name="chain"/> afterwards.</summary>
    /// <param name="stream">The stream, to be handed to <see cref="Sent"/> afterwards.</param>
    /// <param name="chain">The receive buffer.</param>
    /// <param name="header">The packet's header.</param>
    /// <param name="verdict">For <see cref="Sent"/>.</param>
    /// <returns>False when it has nothing to send after all.</returns>
    public bool TryFill(VsockStream stream, DescriptorChain chain, out VsockHeader header, out VsockVerdict verdict)
    {
        header = new VsockHeader
        {
            SourceCid = VsockLimits.HostCid,
            DestinationCid = _cid,
            SourcePort = stream.HostPort,
            DestinationPort = stream.GuestPort,
            Type = VsockLimits.TypeStream,
        };
        return stream.TryFill(chain, ref header, out verdict);
    }

    /// <summary>A packet of <paramref name="stream"/> was sent.</summary>
    public void Sent(VsockStream stream, VsockVerdict verdict) => Apply(stream, verdict);

    /// <summary>Ends every stream that the guest knows of, and forgets what it was to be told.</summary>
    public void DropFlows()
    {
        foreach (VsockStream stream in _table.Snapshot())
        {
            if (stream.State is not (VsockState.Handshake or VsockState.Held))
            {
                Drop(stream);
            }
        }

        _resets.Clear();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (VsockStream stream in _table.Snapshot())
        {
            Drop(stream);
        }

        Clients.Dispose();
        _rings.Dispose();
    }

    /// <summary>Carries out what a stream decided.</summary>
    private void Apply(VsockStream stream, VsockVerdict verdict, in VsockHeader packet = default)
    {
        switch (verdict)
        {
            case VsockVerdict.Keep:
                Schedule(stream);
                break;
            case VsockVerdict.Connect:
                if (IsActive)
                {
                    Request(stream);
                }

                break;
            case VsockVerdict.Accepted:
                Clients.Remove(stream);
                Schedule(stream);
                break;
            case VsockVerdict.Refuse:
                _counters.Refused++;
                Drop(stream);
                break;
            case VsockVerdict.Detach:
                _table.RemoveFlow(stream);
                break;
            case VsockVerdict.Drop:
                Drop(stream);
                break;
            case VsockVerdict.Reset:
                QueueReset(VsockLimits.HostCid, stream.HostPort, stream.GuestPort, VsockLimits.TypeStream);
                Drop(stream);
                break;
            case VsockVerdict.Violation:
                Violation(stream, packet);
                break;
        }
    }

    /// <summary>The guest connects to a port of the host.</summary>
    private void OnRequest(in VsockHeader header)
    {
        SafeFd? socket = null;
        if (!_table.IsFull)
        {
            Span<byte> path = stackalloc byte[UnixSocket.MaxPathBytes];
            _path.CopyTo(path);
            path[_path.Length] = (byte)'_';
            _ = Utf8Formatter.TryFormat(header.DestinationPort, path[(_path.Length + 1)..], out int digits);
            socket = UnixSocket.TryConnect(path[..(_path.Length + 1 + digits)], out _);
        }

        VsockStream? stream = socket is null ? null : TryOpenForGuest(socket, header);
        if (stream is null)
        {
            _counters.Refused++;
            QueueReset(VsockLimits.HostCid, header.DestinationPort, header.SourcePort, VsockLimits.TypeStream);
            return;
        }

        _table.AddFlow(stream);
        _counters.GuestConnects++;
        Apply(stream, stream.TryTakeCredit(header) ? VsockVerdict.Keep : VsockVerdict.Violation, header);
    }

    private VsockStream? TryOpenForGuest(SafeFd socket, in VsockHeader request)
    {
        VsockStream stream = _table.Take();
        try
        {
            stream.OpenForGuest(socket, _table.NextBuffer, request);
        }
        catch (LinuxException)
        {
            socket.Dispose();
            _table.Recycle(stream);
            return null;
        }

        _table.Add(stream);
        return stream;
    }

    /// <summary>The guest broke the protocol: the flow is reset, the queue goes on.</summary>
    private void Violation(VsockStream? stream, in VsockHeader header)
    {
        _counters.ProtocolViolations++;
        if (stream is not null)
        {
            Drop(stream);
        }

        QueueReset(header.DestinationCid, header.DestinationPort, header.SourcePort, header.Type);
    }

    /// <summary>Puts a stream in line for a receive buffer when it has something to send.</summary>
    private void Schedule(VsockStream stream)
    {
        stream.AskForCredit();
        if (stream.CanSend && _ready.TryAdd(stream))
        {
            _wake();
        }
    }

    private void QueueReset(ulong hostCid, uint hostPort, uint guestPort, ushort type)
    {
        _resets.Enqueue(new PendingReset(hostCid, hostPort, guestPort, type));
        _wake();
    }

    private void Drop(VsockStream stream)
    {
        if (stream.IsWaiting)
        {
            Clients.Remove(stream);
        }

        _table.Remove(stream);
        stream.Close();

        // One in line for a receive buffer is recycled when its turn comes.
        if (!stream.IsQueued)
        {
            _table.Recycle(stream);
        }

        if (Clients.IsPaused)
        {
            _wake();
        }
    }
}
