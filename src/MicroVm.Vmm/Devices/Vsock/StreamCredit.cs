namespace MicroVm.Vmm.Devices.Vsock;

/// <summary>The credit of both directions of a stream (virtio 1.2, 5.10.6.3). Counters of bytes wrap at 2^32.</summary>
/// <param name="buffer">Bytes that the guest may have in flight to the host and in its ring.</param>
internal struct StreamCredit(uint buffer)
{
    private uint _received;
    private uint _forwardedTold;
    private uint _sent;
    private uint _peerBuffer;
    private uint _peerForwarded;
    private bool _asked;

    /// <summary>Bytes that the guest may have in flight to the host and in its ring.</summary>
    public readonly uint Buffer => buffer;

    /// <summary>Payload bytes from the guest that the host's socket took, or that were discarded.</summary>
    public uint Forwarded { get; private set; }

    /// <summary>Bytes that the guest has room for.</summary>
    public readonly uint Available
    {
        get
        {
            uint inFlight = _sent - _peerForwarded;
            return inFlight < _peerBuffer ? _peerBuffer - inFlight : 0;
        }
    }

    /// <summary>Takes over what the guest says of its buffer.</summary>
    /// <returns>False when it claims to have consumed more than it was sent.</returns>
    public bool TryTakeUpdate(in VsockHeader header)
    {
        uint before = Available;
        _peerBuffer = Math.Min(header.BufferAllocation, int.MaxValue);
        _peerForwarded = header.ForwardCount;

        // No more than int.MaxValue bytes are ever in flight, so a larger difference is a counter that ran ahead.
        if (_sent - _peerForwarded > int.MaxValue)
        {
            return false;
        }

        if (Available > before)
        {
            _asked = false;
        }

        return true;
    }

    /// <summary>Takes <paramref name="length"/> bytes from the guest; false when it has no credit for them.</summary>
    public bool TryReceive(uint length)
    {
        if (length > buffer - (_received - Forwarded))
        {
            return false;
        }

        _received += length;
        return true;
    }

    /// <summary>Bytes were passed on to the host.</summary>
    public void Forward(uint length) => Forwarded += length;

    /// <summary>Nobody will take the bytes that wait: they are discarded.</summary>
    public void ForwardAll() => Forwarded = _received;

    /// <summary>Bytes were put into the guest's receive buffer.</summary>
    public void Send(uint length) => _sent += length;

    /// <summary>The guest's room is to be asked for; false when that was done since it last had more.</summary>
    public bool TryAsk()
    {
        bool first = !_asked;
        _asked = true;
        return first;
    }

    /// <summary>
    /// The guest has to hear of room before it runs out of credit, but not for every few bytes: when it believes to have less than
    /// half, and a quarter or everything was freed.
    /// </summary>
    /// <param name="empty">No byte of the guest waits for the host.</param>
    public readonly bool OwesUpdate(bool empty)
    {
        uint believed = buffer - (_received - _forwardedTold);
        uint freed = Forwarded - _forwardedTold;
        return freed != 0 && believed < buffer / 2 && (freed >= buffer / 4 || empty);
    }

    /// <summary>Writes the host's side of the credit into a packet that goes to the guest now.</summary>
    public void Tell(ref VsockHeader header)
    {
        header.BufferAllocation = buffer;
        header.ForwardCount = Forwarded;
        _forwardedTold = Forwarded;
    }
}
