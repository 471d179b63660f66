using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Vmm.Devices.Vsock;

/// <summary>Where a stream is in its life.</summary>
internal enum VsockState : byte
{
    /// <summary>Not in use; pooled.</summary>
    Closed,

    /// <summary>A host client that has not sent its CONNECT line.</summary>
    Handshake,

    /// <summary>A host client that waits for the guest's driver.</summary>
    Held,

    /// <summary>The guest has been, or is about to be, asked to accept.</summary>
    Requested,

    /// <summary>Data flows.</summary>
    Established,

    /// <summary>Both directions were shut down towards the guest, the host's socket is closed; the guest's reset is awaited.</summary>
    Closing,

    /// <summary>The guest is done; what it sent is still being written to the host's socket.</summary>
    Lingering,
}

/// <summary>Control packets that a stream has to send when a receive buffer comes free.</summary>
[Flags]
internal enum VsockPending : byte
{
    None = 0,
    Request = 1,
    Response = 2,
    Shutdown = 4,
    CreditUpdate = 8,
    CreditRequest = 16,
}

/// <summary>One stream: the host's Unix socket, the guest's port, the credit of both directions. Pooled.</summary>
/// <remarks>Device thread only. Owns the socket and, while it holds bytes, a ring.</remarks>
internal sealed class VsockConnection(VsockDevice device) : IEventHandler
{
    /// <summary>The host's socket; null in Closing and Closed.</summary>
    public SafeFd? Socket;

    /// <summary>Bytes that the host's socket did not take; null when there are none.</summary>
    public HostRing? Ring;

    /// <summary>The next stream that waits for a receive buffer.</summary>
    public VsockConnection? NextReady;

    /// <summary>When a Handshake or Requested stream is given up (TickCount64).</summary>
    public long Deadline;

    public uint HostPort;
    public uint GuestPort;
    public VsockState State;
    public VsockPending Pending;

    /// <summary>What the guest said it will not do any more.</summary>
    public VsockShutdown GuestShutdown;

    /// <summary>What the guest was told that the host will not do any more.</summary>
    public VsockShutdown SentShutdown;

    /// <summary>It is in the queue of streams that wait for receive buffers.</summary>
    public bool IsQueued;

    /// <summary>The socket may have bytes, an end of file or an error to read. Edge-triggered: cleared by EAGAIN only.</summary>
    public bool Readable;

    /// <summary>The socket may take bytes. Edge-triggered: cleared by EAGAIN only.</summary>
    public bool Writable;

    /// <summary>Nothing more will be read from the socket.</summary>
    public bool HostEnded;

    /// <summary>Nothing more can be written to the socket; what the guest sends is discarded.</summary>
    public bool HostDeaf;

    /// <summary>epoll reported a hang-up.</summary>
    public bool HungUp;

    /// <summary>The guest's end of file was passed on to the socket.</summary>
    public bool WriteShut;

    /// <summary>A credit request is on its way, or unanswered.</summary>
    public bool CreditAsked;

    /// <summary>Credit that the guest has: the bound of what may be in flight and in the ring.</summary>
    public uint Buffer;

    /// <summary>Payload bytes received from the guest, and of these written to the socket. Both wrap.</summary>
    public uint Received;

    /// <inheritdoc cref="Received"/>
    public uint Forwarded;

    /// <summary><see cref="Forwarded"/> as the guest last heard it.</summary>
    public uint ForwardedSent;

    /// <summary>Payload bytes sent to the guest; wraps.</summary>
    public uint Sent;

    /// <summary>The guest's buffer size and how much of <see cref="Sent"/> it has consumed, as it last said.</summary>
    public uint PeerBuffer;

    /// <inheritdoc cref="PeerBuffer"/>
    public uint PeerForwarded;

    /// <summary>The key of the stream in the device's table.</summary>
    public ulong Key => MakeKey(HostPort, GuestPort);

    /// <summary>Bytes that the guest has room for (5.10.6.3).</summary>
    public uint Credit
    {
        get
        {
            uint inFlight = Sent - PeerForwarded;
            return inFlight < PeerBuffer ? PeerBuffer - inFlight : 0;
        }
    }

    /// <summary>Payload may be read from the socket for the guest.</summary>
    public bool WantsData =>
        State == VsockState.Established && Readable && !HostEnded && (GuestShutdown & VsockShutdown.Receive) == 0;

    /// <summary>There is something to put into a receive buffer now.</summary>
    public bool CanSend => Pending != VsockPending.None || (WantsData && Credit != 0);

    /// <summary>Bytes of the guest that wait for the socket.</summary>
    public uint Backlog => Ring?.Count ?? 0;

    /// <summary>Makes the key of a flow.</summary>
    public static ulong MakeKey(uint hostPort, uint guestPort) => ((ulong)hostPort << 32) | guestPort;

    /// <inheritdoc/>
    public void OnReady(SafeFd fd, uint events)
    {
        const uint Input = Libc.EPOLLIN | Libc.EPOLLRDHUP | Libc.EPOLLHUP | Libc.EPOLLERR;
        const uint Output = Libc.EPOLLOUT | Libc.EPOLLHUP | Libc.EPOLLERR;
        Readable |= (events & Input) != 0;
        Writable |= (events & Output) != 0;
        HungUp |= (events & Libc.EPOLLHUP) != 0;
        device.OnHostReady(this);
    }

    /// <summary>
    /// Takes over what the guest says of its buffer.
    /// </summary>
    /// <returns>False when it claims to have consumed more than it was sent.</returns>
    public bool TakeCredit(in VsockHeader header)
    {
        uint before = Credit;
        PeerBuffer = Math.Min(header.BufferAllocation, int.MaxValue);
        PeerForwarded = header.ForwardCount;

        // No more than int.MaxValue bytes are ever in flight, so a larger difference is a counter that ran ahead.
        if (Sent - PeerForwarded > int.MaxValue)
        {
            return false;
        }

        if (Credit > before)
        {
            CreditAsked = false;
        }

        return true;
    }

    /// <summary>Makes it as new, for reuse.</summary>
    public void Clear()
    {
        Socket = null;
        Ring = null;
        NextReady = null;
        Deadline = 0;
        HostPort = GuestPort = 0;
        State = VsockState.Closed;
        Pending = VsockPending.None;
        GuestShutdown = SentShutdown = VsockShutdown.None;
        IsQueued = Readable = Writable = HostEnded = HostDeaf = HungUp = WriteShut = CreditAsked = false;
        Buffer = Received = Forwarded = ForwardedSent = Sent = PeerBuffer = PeerForwarded = 0;
    }
}
