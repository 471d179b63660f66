using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text;
using MicroVm.Bus.Counters;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Virtio;

namespace MicroVm.Vmm.Devices.Vsock;

/// <summary>
/// virtio-vsock (virtio 1.2, 5.10) in the hybrid form: the host's side is Unix sockets. A client of the listening socket
/// sends <c>CONNECT port\n</c>, gets <c>OK hostport\n</c> once the guest accepted, and is disconnected when it refused;
/// a guest that connects to host port P reaches the listener at <c>path_P</c>.
/// </summary>
/// <remarks>
/// Payload goes from the socket into receive buffers with readv(2), and from transmit buffers to the socket with
/// sendmsg(2), without a copy. Only what a full socket does not take is kept, in a ring bounded by the credit that the
/// guest was given. Everything runs on the event loop's thread, in turns: events mark streams and queues, and one turn of
/// work at the end of the batch handles them, fairly, and publishes each queue once. A <see cref="VsockStream"/> decides what
/// its packets mean, the <see cref="VsockMuxer"/> finds it and carries that out, and this type serves the queues.
/// </remarks>
public sealed partial class VsockDevice : VirtioDevice, ICounterSource, IEventHandler, IDeferredWork
{
    private const int ReceiveQueue = 0;
    private const int TransmitQueue = 1;
    private const int EventQueue = 2;
    private const int MinimumChain = 64;

    // Longest "_4294967295" behind the path.
    private const int PortSuffix = 11;
    private static readonly ushort[] QueueSizes = [64, 128, 8];
    private readonly EventLoop _loop;
    private readonly string _path;
    private readonly bool _ownsPath;
    private readonly VsockCounters _counters = new();
    private readonly VsockMuxer _muxer;
    private VirtioActivation? _activation;
    private Virtqueue? _rx;
    private Virtqueue? _tx;
    private Virtqueue? _events;
    private DescriptorChain? _rxChain;
    private DescriptorChain? _txChain;
    private bool _turnQueued;
    private bool _txWork;
    private bool _txStalled;
    private bool _resetEventPending;
    private bool _disposed;

    /// <summary>Listens at <paramref name="socketPath"/>; clients are held until the guest's driver is up.</summary>
    /// <param name="cid">The guest's context id, 3 or more.</param>
    /// <param name="socketPath">
    /// Path of the listening Unix socket, at most 96 bytes; a stale socket there is replaced. Guest-initiated connections
    /// to host port P go to the listener at <c>path_P</c>.
    /// </param>
    /// <param name="loop">The loop that the device is served by, the same as in its activation.</param>
    /// <param name="listener">A socket that listens at the path already, taken over; the path is then left alone.</param>
    /// <exception cref="LinuxException">The socket cannot be bound.</exception>
    /// <exception cref="ArgumentException">The path is too long or the CID is reserved.</exception>
    public VsockDevice(uint cid, string socketPath, EventLoop loop, SafeFd? listener = null)
    {
        ArgumentException.ThrowIfNullOrEmpty(socketPath);
        ArgumentNullException.ThrowIfNull(loop);
        if (cid is < 3 or uint.MaxValue)
        {
            throw new ArgumentException($"vsock: the context id {cid} is reserved (virtio 1.2, 5.10.4); use 3 to 4294967294.");
        }

        _path = socketPath;
        byte[] path = Encoding.UTF8.GetBytes(socketPath);
        if (path.Length > UnixSocket.MaxPathBytes - PortSuffix)
        {
            throw new ArgumentException(
                $"vsock: the socket path {socketPath} is longer than {UnixSocket.MaxPathBytes - PortSuffix} bytes; use a shorter directory.");
        }

        _loop = loop;
        _ownsPath = listener is null;
        _muxer = new VsockMuxer(cid, path, listener ?? UnixSocket.Listen(socketPath), loop, _counters, ScheduleTurn);
    }

    /// <summary>How long a host client may take to send its CONNECT line.</summary>
    internal long HandshakeMilliseconds { init => _muxer.Clients.HandshakeMilliseconds = value; }

    /// <summary>How long the guest may take to answer a request.</summary>
    internal long RequestMilliseconds { init => _muxer.Clients.RequestMilliseconds = value; }

    /// <inheritdoc/>
    public override uint DeviceId => 19;

    /// <inheritdoc/>
    public override string Name => "vsock";

    /// <inheritdoc/>
    public override ulong DeviceFeatures => VsockLimits.FeatureStream;

    /// <summary>
    /// Receive: as many 4 KiB buffers as fill Linux's credit of one stream, for which the driver pays at its start.
    /// Transmit costs nothing until it is used. Linux keeps 8 event buffers.
    /// </summary>
    public override ReadOnlySpan<ushort> QueueMaxSizes => QueueSizes;

    /// <inheritdoc/>
    public override void ReadConfig(uint offset, Span<byte> data)
    {
        Span<byte> config = stackalloc byte[sizeof(ulong)];
        BinaryPrimitives.WriteUInt64LittleEndian(config, _muxer.Cid);
        CopyConfig(config, offset, data);
    }

    /// <inheritdoc/>
    /// <exception cref="InvalidOperationException">The driver did not set up the receive and the transmit queue.</exception>
    public override void Activate(VirtioActivation activation)
    {
        ArgumentNullException.ThrowIfNull(activation);
        Virtqueue rx = activation.Require(ReceiveQueue), tx = activation.Require(TransmitQueue);
        (_rx, _tx, _events) = (rx, tx, activation.Queues[EventQueue]);
        _rxChain = new DescriptorChain(Math.Max(rx.Size, MinimumChain));
        _txChain = new DescriptorChain(Math.Max(tx.Size, MinimumChain));
        _activation = activation;
        try
        {
            _loop.Add(rx.Kick.Fd, Libc.EPOLLIN, this);
            _loop.Add(tx.Kick.Fd, Libc.EPOLLIN, this);
        }
        catch
        {
            Reset();
            throw;
        }

        _txWork = true;
        _txStalled = false;
        _muxer.IsActive = true;
        _muxer.Clients.RequestHeld();
        ScheduleTurn();
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        if (_activation is null)
        {
            return;
        }

        _loop.Remove(_rx!.Kick.Fd);
        _loop.Remove(_tx!.Kick.Fd);
        _muxer.IsActive = false;
        _muxer.DropFlows();
        _resetEventPending = false;
        _activation = null;
        (_rx, _tx, _events) = (null, null, null);
        _rxChain!.Dispose();
        _txChain!.Dispose();
    }

    /// <summary>
    /// Tells the guest that every stream is gone and that its context id is <paramref name="cid"/> now (5.10.6.7): what a
    /// guest restored from a snapshot needs to hear. Listening sockets of the guest go on. Device thread.
    /// </summary>
    public void ResetTransport(uint cid)
    {
        _muxer.DropFlows();
        _muxer.Cid = cid;
        _resetEventPending = true;
        ScheduleTurn();
    }

    /// <inheritdoc/>
    public void CollectCounters(Action<string, long> add)
    {
        ArgumentNullException.ThrowIfNull(add);
        _counters.Collect(Name, add);
        add(Name + ".streams", _muxer.Count);
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        if (_disposed)
        {
            return;
        }

        _disposed = true;
        Reset();
        _muxer.Dispose();
        if (_ownsPath)
        {
            RemovePath();
        }

        base.Dispose();
    }

    private void RemovePath()
    {
        try
        {
            File.Delete(_path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            VmmLog.Write($"vsock: cannot remove the socket {_path}: {e.Message}");
        }
    }

    void IEventHandler.OnReady(SafeFd fd, uint events)
    {
        if (fd == _tx?.Kick.Fd)
        {
            _ = _tx.Kick.Drain();
            _txWork = true;
            ScheduleTurn();
        }
        else if (fd == _rx?.Kick.Fd)
        {
            _ = _rx.Kick.Drain();
            ScheduleTurn();
        }
    }

    void IDeferredWork.RunDeferred()
    {
        _turnQueued = false;
        if (_activation is { } activation && !_disposed)
        {
            bool more = false;
            if (_txWork || (_txStalled && _muxer.TakesPackets))
            {
                more = Transmit();
                _txWork = more;
            }

            more |= Receive();
            more |= _txStalled && _muxer.TakesPackets;
            SendResetEvent();
            bool interrupt = _tx!.Publish();
            interrupt |= _rx!.Publish();
            interrupt |= _events?.Publish() ?? false;
            if (interrupt)
            {
                activation.Interrupt.SignalUsed();
            }

            _ = _tx.ReportIfBroken(activation.Interrupt);
            _ = _rx.ReportIfBroken(activation.Interrupt);
            _ = _events?.ReportIfBroken(activation.Interrupt);
            if (more)
            {
                ScheduleTurn();
            }
        }

        if (!_disposed)
        {
            _muxer.Clients.Resume();
        }
    }

    private void ScheduleTurn()
    {
        if (!_turnQueued)
        {
            _turnQueued = true;
            _loop.Defer(this);
        }
    }

    private void SendResetEvent()
    {
        if (!_resetEventPending || _events is null || !_events.TryPop(_rxChain!))
        {
            return;
        }

        // struct virtio_vsock_event: le32 id, VIRTIO_VSOCK_EVENT_TRANSPORT_RESET is 0.
        ReadOnlySpan<byte> id = stackalloc byte[sizeof(uint)];
        int n = _rxChain!.CopyToWritable(0, id);
        _events.PushUsed(_rxChain.Head, (uint)n);
        _resetEventPending = false;
    }

    /// <summary>Takes packets from the transmit queue.</summary>
    /// <returns>True when the turn's budget ended it: there is more to do at once.</returns>
    private bool Transmit()
    {
        Virtqueue tx = _tx!;
        DescriptorChain chain = _txChain!;
        _txStalled = false;
        tx.DisableNotifications();
        for (int i = 0; i < VsockLimits.TurnBudget; i++)
        {
            if (!_muxer.TakesPackets)
            {
                // Goes on when the driver gives receive buffers for resets (5.10.6.1).
                _txStalled = true;
                return false;
            }

            if (tx.Pending() == 0 && (tx.IsBroken || !tx.EnableNotifications()))
            {
                return false;
            }

            if (!tx.TryPop(chain))
            {
                return false;
            }

            VsockHeader header = default;
            int n = chain.CopyFromReadable(0, MemoryMarshal.AsBytes(new Span<VsockHeader>(ref header)));
            _muxer.Deliver(chain, n, header);
            tx.PushUsed(chain.Head, 0);
            _counters.TransmitPackets++;
        }

        return true;
    }

    /// <summary>Fills receive buffers: resets first, then a packet of each stream in line, again and again.</summary>
    /// <returns>True when the turn's budget ended it: there is more to do at once.</returns>
    private bool Receive()
    {
        Virtqueue rx = _rx!;
        rx.DisableNotifications();
        for (int i = 0; i < VsockLimits.TurnBudget; i++)
        {
            if (!_muxer.HasPackets)
            {
                return false;
            }

            if (rx.Pending() == 0 && (rx.IsBroken || !rx.EnableNotifications()))
            {
                // The kick for the next buffer goes on with this.
                return false;
            }

            if (!SendNext(rx))
            {
                return false;
            }
        }

        return true;
    }

    /// <returns>False when the queue broke or there was nothing to send.</returns>
    private bool SendNext(Virtqueue rx)
    {
        DescriptorChain chain = _rxChain!;
        if (!_muxer.TryTakeSender(out VsockStream? stream) || !rx.TryPop(chain))
        {
            return false;
        }

        if (chain.WritableLength <= VsockHeader.Size)
        {
            return rx.Break("a receive buffer has no room for a header and data (5.10.6)");
        }

        if (stream is null)
        {
            Complete(rx, chain, _muxer.TakeReset());
        }
        else if (_muxer.TryFill(stream, chain, out VsockHeader header, out VsockVerdict verdict))
        {
            Complete(rx, chain, header);
            _muxer.Sent(stream, verdict);
        }
        else
        {
            rx.UndoPop();
        }

        return true;
    }

    private void Complete(Virtqueue rx, DescriptorChain chain, in VsockHeader header)
    {
        _ = chain.CopyToWritable(0, MemoryMarshal.AsBytes(new ReadOnlySpan<VsockHeader>(in header)));
        rx.PushUsed(chain.Head, VsockHeader.Size + header.Length);
        _counters.ReceivePackets++;
    }
}
