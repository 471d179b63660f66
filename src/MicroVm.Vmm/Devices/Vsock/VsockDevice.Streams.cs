using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Vmm.Devices.Vsock;

/// <content>The streams: how they begin, wait for receive buffers, and end.</content>
public sealed partial class VsockDevice
{
    private const uint SocketEvents = Libc.EPOLLIN | Libc.EPOLLOUT | Libc.EPOLLRDHUP | Libc.EPOLLET;
    private const int MaxPooled = 64;
    private readonly Dictionary<ulong, VsockConnection> _streams = [];
    private readonly HashSet<VsockConnection> _all = [];
    private readonly List<VsockConnection> _pending = [];
    private readonly Stack<VsockConnection> _pool = new();
    private VsockConnection? _readyHead;
    private VsockConnection? _readyTail;
    private uint _nextHostPort = VsockLimits.FirstHostPort;
    private long _count;

    /// <summary>The host's socket of a stream became ready.</summary>
    internal void OnHostReady(VsockConnection stream)
    {
        switch (stream.State)
        {
            case VsockState.Handshake:
                ReadConnectLine(stream);
                break;
            case VsockState.Held when stream.HungUp:
                Drop(stream);
                break;
            case VsockState.Requested when stream.HungUp:
                // A guest that was not asked yet need not hear of it.
                ResetStream(stream, tellGuest: (stream.Pending & VsockPending.Request) == 0);
                break;
            case VsockState.Established:
                Flush(stream);
                UpdateShutdown(stream);
                Schedule(stream);
                break;
            case VsockState.Lingering:
                Flush(stream);
                break;
        }
    }

    /// <summary>Takes a stream object for <paramref name="socket"/>, which it owns from now on, or fails to watch it.</summary>
    private VsockConnection? Open(SafeFd socket, VsockState state)
    {
        VsockConnection stream = _pool.TryPop(out VsockConnection? pooled) ? pooled : new VsockConnection(this);
        try
        {
            _loop.Add(socket, SocketEvents, stream);
        }
        catch (LinuxException)
        {
            socket.Dispose();
            _pool.Push(stream);
            return null;
        }

        stream.Socket = socket;
        stream.State = state;
        stream.Readable = true;
        stream.Writable = true;
        stream.Buffer = _all.Count < VsockLimits.FullBufferConnections ? VsockLimits.Buffer : (uint)VsockLimits.SmallBuffer;
        _all.Add(stream);
        _count = _all.Count;
        return stream;
    }

    /// <summary>Puts a stream in line for a receive buffer when it has something to send.</summary>
    private void Schedule(VsockConnection stream)
    {
        if (stream.WantsData && stream.Credit == 0 && !stream.CreditAsked)
        {
            stream.CreditAsked = true;
            stream.Pending |= VsockPending.CreditRequest;
        }

        if (stream.IsQueued || !stream.CanSend)
        {
            return;
        }

        stream.IsQueued = true;
        if (_readyTail is null)
        {
            _readyHead = stream;
        }
        else
        {
            _readyTail.NextReady = stream;
        }

        _readyTail = stream;
        ScheduleTurn();
    }

    /// <summary>Takes the first stream in line that still has something to send; null when there is none.</summary>
    private VsockConnection? NextReady()
    {
        while (_readyHead is { } stream)
        {
            _readyHead = stream.NextReady;
            _readyTail = _readyHead is null ? null : _readyTail;
            stream.NextReady = null;
            stream.IsQueued = false;
            if (stream.State == VsockState.Closed)
            {
                Recycle(stream);
            }
            else if (stream.CanSend)
            {
                return stream;
            }
        }

        return null;
    }

    /// <summary>Works out what the guest has to be told, and queues it.</summary>
    private void UpdateShutdown(VsockConnection stream)
    {
        if (stream.State == VsockState.Established && (WantedShutdown(stream) & ~stream.SentShutdown) != 0)
        {
            stream.Pending |= VsockPending.Shutdown;
            Schedule(stream);
        }
    }

    private VsockShutdown WantedShutdown(VsockConnection stream)
    {
        // A hang-up without our own half-close means that the peer is gone: it will not take what waits in the ring.
        if (stream.HungUp && stream.HostEnded && !stream.WriteShut)
        {
            StopWriting(stream);
        }

        VsockShutdown wanted = stream.HostEnded ? VsockShutdown.Send : VsockShutdown.None;

        // With the guest's end of file delivered too, both are done: saying so lets the guest forget the stream.
        bool done = stream.HostEnded && (stream.GuestShutdown & VsockShutdown.Send) != 0 && stream.Backlog == 0;
        return stream.HostDeaf || done ? wanted | VsockShutdown.Receive : wanted;
    }

    /// <summary>The guest was told that the host does nothing more: only its reset is awaited.</summary>
    private void EnterClosing(VsockConnection stream)
    {
        CloseSocket(stream);
        ReturnRing(stream);
        stream.State = VsockState.Closing;
        if (stream.GuestShutdown == VsockShutdown.Both)
        {
            ResetStream(stream, tellGuest: true);
        }
    }

    /// <summary>The guest is done with the stream: what it sent is still delivered, then the host's socket closed.</summary>
    private void EndGuestSide(VsockConnection stream)
    {
        _streams.Remove(stream.Key);
        stream.Pending = VsockPending.None;
        if (stream.State == VsockState.Established && stream.Backlog != 0)
        {
            stream.State = VsockState.Lingering;
            stream.GuestShutdown = VsockShutdown.Both;
        }
        else
        {
            Drop(stream);
        }
    }

    /// <summary>Ends a stream at once, what it still holds included.</summary>
    private void ResetStream(VsockConnection stream, bool tellGuest)
    {
        if (tellGuest)
        {
            QueueReset(VsockLimits.HostCid, stream.HostPort, stream.GuestPort, VsockLimits.TypeStream);
        }

        Drop(stream);
    }

    private void QueueReset(ulong hostCid, uint hostPort, uint guestPort, ushort type)
    {
        _resets.Enqueue(new PendingReset(hostCid, hostPort, guestPort, type));
        ScheduleTurn();
    }

    private void Drop(VsockConnection stream)
    {
        if (stream.State is VsockState.Requested or VsockState.Established or VsockState.Closing)
        {
            _streams.Remove(stream.Key);
        }

        if (stream.State is VsockState.Handshake or VsockState.Held or VsockState.Requested)
        {
            _pending.Remove(stream);
        }

        CloseSocket(stream);
        ReturnRing(stream);
        _all.Remove(stream);
        _count = _all.Count;
        stream.State = VsockState.Closed;
        stream.Pending = VsockPending.None;

        // One in line for a receive buffer is recycled when its turn comes.
        if (!stream.IsQueued)
        {
            Recycle(stream);
        }

        if (_listenerPaused)
        {
            ScheduleTurn();
        }
    }

    private void Recycle(VsockConnection stream)
    {
        stream.Clear();
        if (_pool.Count < MaxPooled)
        {
            _pool.Push(stream);
        }
    }

    /// <summary>Ends every stream that the guest knows of.</summary>
    private void DropStreams()
    {
        foreach (VsockConnection stream in _all.ToArray())
        {
            if (stream.State is not (VsockState.Handshake or VsockState.Held))
            {
                Drop(stream);
            }
        }
    }

    private void DropAll()
    {
        foreach (VsockConnection stream in _all.ToArray())
        {
            Drop(stream);
        }
    }

    private void CloseSocket(VsockConnection stream)
    {
        if (stream.Socket is { } socket)
        {
            stream.Socket = null;
            _loop.Remove(socket);
            socket.Dispose();
        }
    }

    private void ReturnRing(VsockConnection stream)
    {
        if (stream.Ring is { } ring)
        {
            stream.Ring = null;
            _rings.Return(ring);
        }
    }
}
