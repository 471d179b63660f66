using MicroVm.Linux;
using MicroVm.Virtio;

namespace MicroVm.Vmm.Devices.Vsock;

/// <summary>Who has streams, and hears when the host's end of one is ready.</summary>
internal interface IStreamOwner
{
    /// <summary>The host's end of <paramref name="stream"/> became ready: <see cref="VsockStream.OnHostReady"/> is to be called.</summary>
    void OnHostReady(VsockStream stream);
}

/// <summary>
/// One stream: it decides what each packet of the guest and each event of the host's socket means, and what to send next. The owner
/// carries out its verdicts. Pooled.
/// </summary>
/// <remarks>Device thread only.</remarks>
internal sealed class VsockStream(IStreamOwner owner, EventLoop loop, HostRingPool rings, VsockCounters counters) : IEventHandler
{
    private readonly HostSocket _host = new(loop, rings);
    private StreamCredit _credit;
    private VsockPending _pending;
    private VsockShutdown _guestShutdown;
    private VsockShutdown _sentShutdown;

    /// <summary>The port on the host's side.</summary>
    public uint HostPort { get; private set; }

    /// <summary>The port on the guest's side.</summary>
    public uint GuestPort { get; private set; }

    /// <summary>Where it is in its life.</summary>
    public VsockState State { get; private set; }

    /// <summary>When a host client is given up (TickCount64).</summary>
    public long Deadline { get; set; }

    /// <summary>The next one in the <see cref="ReadyQueue"/>.</summary>
    public VsockStream? NextReady { get; set; }

    /// <summary>It is in the <see cref="ReadyQueue"/>.</summary>
    public bool IsQueued { get; set; }

    /// <summary>It is a host client whose stream is not established yet.</summary>
    public bool IsWaiting => State is VsockState.Handshake or VsockState.Held or VsockState.Requested;

    /// <summary>There is something to put into a receive buffer now.</summary>
    public bool CanSend => _pending != VsockPending.None || (WantsData && _credit.Available != 0);

    // Payload may be read from the socket for the guest.
    private bool WantsData =>
        State == VsockState.Established && _host.IsReadable && (_guestShutdown & VsockShutdown.Receive) == 0;

    /// <summary>Begins with a host client.</summary>
    /// <param name="socket">The connection, taken over.</param>
    /// <param name="buffer">Credit for the guest, in bytes.</param>
    /// <exception cref="LinuxException">The socket cannot be watched; it stays the caller's.</exception>
    public void OpenClient(SafeFd socket, uint buffer) => Open(socket, VsockState.Handshake, buffer);

    /// <summary>Begins with a connection that the guest asked for: the next packet is the response.</summary>
    /// <inheritdoc cref="OpenClient"/>
    public void OpenForGuest(SafeFd socket, uint buffer, in VsockHeader request)
    {
        Open(socket, VsockState.Established, buffer);
        HostPort = request.DestinationPort;
        GuestPort = request.SourcePort;
        _pending = VsockPending.Response;
    }

    /// <summary>A held client's guest is there: the next packet asks it to accept.</summary>
    public void Request(uint hostPort)
    {
        HostPort = hostPort;
        State = VsockState.Requested;
        _pending = VsockPending.Request;
    }

    /// <inheritdoc/>
    public void OnReady(SafeFd fd, uint events)
    {
        _host.OnEvents(events);
        owner.OnHostReady(this);
    }

    /// <summary>The host's socket may have become readable or writable, or hung up.</summary>
    public VsockVerdict OnHostReady()
    {
        switch (State)
        {
            case VsockState.Handshake:
                return ReadConnectLine();
            case VsockState.Held or VsockState.Requested when _host.HungUp:
                return GiveUp();
            case VsockState.Established:
                VsockVerdict verdict = Flush();
                UpdateShutdown();
                return verdict;
            case VsockState.Lingering:
                return Flush();
            default:
                return VsockVerdict.Keep;
        }
    }

    /// <summary>Ends a host client that waits. A guest that was not asked yet need not hear of it.</summary>
    public VsockVerdict GiveUp() =>
        State == VsockState.Requested && (_pending & VsockPending.Request) == 0 ? VsockVerdict.Reset : VsockVerdict.Drop;

    /// <summary>Takes over the credit in a packet's header; false when the guest claims to have consumed more than it was sent.</summary>
    public bool TryTakeCredit(in VsockHeader header) => _credit.TryTakeUpdate(header);

    /// <summary>A packet of the guest that is no reset; its payload is within <paramref name="chain"/>.</summary>
    public VsockVerdict OnPacket(DescriptorChain chain, in VsockHeader header)
    {
        if (!TryTakeCredit(header))
        {
            return VsockVerdict.Violation;
        }

        switch (header.Operation)
        {
            case VsockOperation.Response when State == VsockState.Requested && _pending == VsockPending.None:
                return Accept();
            case VsockOperation.Data when State is VsockState.Established or VsockState.Closing
                && (_guestShutdown & VsockShutdown.Send) == 0:
                return OnData(chain, header.Length);
            case VsockOperation.CreditUpdate when State != VsockState.Requested:
                return VsockVerdict.Keep;
            case VsockOperation.CreditRequest when State != VsockState.Requested:
                _pending |= VsockPending.CreditUpdate;
                return VsockVerdict.Keep;
            case VsockOperation.Shutdown when State != VsockState.Requested:
                return OnShutdown((VsockShutdown)(header.Flags & (uint)VsockShutdown.Both));
            default:
                return VsockVerdict.Violation;
        }
    }

    /// <summary>The guest reset the stream: what it sent before is still delivered.</summary>
    public VsockVerdict OnReset()
    {
        if (State == VsockState.Established && _host.Backlog != 0)
        {
            _pending = VsockPending.None;
            _guestShutdown = VsockShutdown.Both;
            State = VsockState.Lingering;
            return VsockVerdict.Detach;
        }

        return State == VsockState.Requested ? VsockVerdict.Refuse : VsockVerdict.Drop;
    }

    /// <summary>Asks for credit when there is data for a guest that has no room for it.</summary>
    public void AskForCredit()
    {
        if (WantsData && _credit.Available == 0 && _credit.TryAsk())
        {
            _pending |= VsockPending.CreditRequest;
        }
    }

    /// <summary>Chooses the next packet: writes its payload into <paramref name="chain"/> and the rest into <paramref name="header"/>.</summary>
    /// <param name="chain">A receive buffer with room for a header and data.</param>
    /// <param name="header">The header, in which addresses are set already.</param>
    /// <param name="verdict">What becomes of the stream once the packet is sent.</param>
    /// <returns>False when there is nothing to send after all.</returns>
    public bool TryFill(DescriptorChain chain, ref VsockHeader header, out VsockVerdict verdict)
    {
        verdict = VsockVerdict.Keep;
        header.Operation = NextOperation(chain, ref header);
        if (header.Operation == VsockOperation.Invalid)
        {
            return false;
        }

        _credit.Tell(ref header);
        _pending &= ~VsockPending.CreditUpdate;
        if (header.Operation == VsockOperation.Shutdown && _sentShutdown == VsockShutdown.Both)
        {
            // The host does nothing more: only the guest's reset is awaited.
            _host.Close();
            State = VsockState.Closing;
            verdict = _guestShutdown == VsockShutdown.Both ? VsockVerdict.Reset : VsockVerdict.Keep;
        }

        return true;
    }

    /// <summary>Closes the host's end and discards what waits.</summary>
    public void Close()
    {
        _host.Close();
        _pending = VsockPending.None;
        State = VsockState.Closed;
    }

    /// <summary>Makes a closed one as new, for reuse.</summary>
    public void Clear()
    {
        _host.Clear();
        _credit = default;
        _guestShutdown = _sentShutdown = VsockShutdown.None;
        Deadline = 0;
        HostPort = GuestPort = 0;
    }

    private void Open(SafeFd socket, VsockState state, uint buffer)
    {
        _host.Open(socket, this);
        _credit = new StreamCredit(buffer);
        State = state;
    }

    private VsockVerdict ReadConnectLine()
    {
        switch (_host.ReadConnectLine(out uint port))
        {
            case null:
                return VsockVerdict.Keep;
            case false:
                return VsockVerdict.Refuse;
            default:
                GuestPort = port;
                State = VsockState.Held;
                return VsockVerdict.Connect;
        }
    }

    /// <summary>The guest accepted: tells the client, whose bytes flow from now on.</summary>
    private VsockVerdict Accept()
    {
        if (!_host.TryAnswer(HostPort))
        {
            return VsockVerdict.Reset;
        }

        State = VsockState.Established;
        return VsockVerdict.Accepted;
    }

    private VsockVerdict OnData(DescriptorChain chain, uint length)
    {
        if (!_credit.TryReceive(length))
        {
            counters.CreditViolations++;
            return VsockVerdict.Violation;
        }

        counters.TransmitBytes += length;
        uint written = _host.Write(chain, length);
        _credit.Forward(written);
        if (_host.IsDeaf || State == VsockState.Closing)
        {
            _credit.ForwardAll();
        }
        else if (written < length)
        {
            counters.BufferedBytes += length - written;
            if (!_host.TryKeep(chain, written, length - written, _credit.Buffer))
            {
                // No memory for what was promised: the stream cannot go on, the others can.
                return VsockVerdict.Reset;
            }
        }

        UpdateCredit();
        return VsockVerdict.Keep;
    }

    private VsockVerdict OnShutdown(VsockShutdown flags)
    {
        _guestShutdown |= flags;
        if ((flags & VsockShutdown.Receive) != 0)
        {
            _host.EndReading();
        }

        return _host.Backlog == 0 ? OnDrained() : VsockVerdict.Keep;
    }

    /// <summary>Writes what waits for the host, and what then follows.</summary>
    private VsockVerdict Flush()
    {
        if (_host.Backlog == 0)
        {
            return VsockVerdict.Keep;
        }

        _credit.Forward(_host.Flush());
        if (_host.IsDeaf)
        {
            _credit.ForwardAll();
        }

        UpdateCredit();
        return _host.Backlog == 0 ? OnDrained() : VsockVerdict.Keep;
    }

    /// <summary>Everything that the guest sent has been written (or discarded): passes on what it said about the end.</summary>
    private VsockVerdict OnDrained()
    {
        if (State == VsockState.Lingering)
        {
            return VsockVerdict.Drop;
        }

        if ((_guestShutdown & VsockShutdown.Send) != 0)
        {
            _host.EndWriting();
        }

        if (_guestShutdown == VsockShutdown.Both)
        {
            // A clean end: the reset is the answer that the guest waits for (5.10.6.5).
            return VsockVerdict.Reset;
        }

        UpdateShutdown();
        return VsockVerdict.Keep;
    }

    private void UpdateCredit()
    {
        if (State == VsockState.Established && _credit.OwesUpdate(_host.Backlog == 0))
        {
            _pending |= VsockPending.CreditUpdate;
        }

        if (_host.IsDeaf)
        {
            UpdateShutdown();
        }
    }

    /// <summary>Works out what the guest has to be told of the host's end.</summary>
    private void UpdateShutdown()
    {
        if (State == VsockState.Established && (WantedShutdown() & ~_sentShutdown) != 0)
        {
            _pending |= VsockPending.Shutdown;
        }
    }

    private VsockShutdown WantedShutdown()
    {
        // A hang-up without our own half-close means that the peer is gone: it will not take what waits in the ring.
        if (_host.HungUp && _host.IsEnded && !_host.WriteShut)
        {
            _host.StopWriting();
            _credit.ForwardAll();
        }

        VsockShutdown wanted = _host.IsEnded ? VsockShutdown.Send : VsockShutdown.None;

        // With the guest's end of file delivered too, both are done: saying so lets the guest forget the stream.
        bool done = _host.IsEnded && (_guestShutdown & VsockShutdown.Send) != 0 && _host.Backlog == 0;
        return _host.IsDeaf || done ? wanted | VsockShutdown.Receive : wanted;
    }

    /// <summary>The most urgent of what is to be said; Invalid when there is nothing.</summary>
    private VsockOperation NextOperation(DescriptorChain chain, ref VsockHeader header)
    {
        if (TryTake(VsockPending.Request))
        {
            return VsockOperation.Request;
        }

        if (TryTake(VsockPending.Response))
        {
            return VsockOperation.Response;
        }

        if (WantsData && _credit.Available != 0)
        {
            ulong room = chain.WritableLength - VsockHeader.Size;
            uint n = _host.Read(chain, Math.Min(Math.Min(_credit.Available, VsockLimits.MaxPayload), room));
            if (n != 0)
            {
                _credit.Send(n);
                counters.ReceiveBytes += n;
                header.Length = n;
                return VsockOperation.Data;
            }

            if (_host.IsEnded)
            {
                UpdateShutdown();
            }
        }

        if (TryTake(VsockPending.Shutdown))
        {
            _sentShutdown |= WantedShutdown();
            header.Flags = (uint)_sentShutdown;
            return VsockOperation.Shutdown;
        }

        if (TryTake(VsockPending.CreditRequest))
        {
            counters.CreditRequestsSent++;
            return VsockOperation.CreditRequest;
        }

        if (TryTake(VsockPending.CreditUpdate))
        {
            counters.CreditUpdatesSent++;
            return VsockOperation.CreditUpdate;
        }

        return VsockOperation.Invalid;
    }

    private bool TryTake(VsockPending what)
    {
        bool pending = (_pending & what) != 0;
        _pending &= ~what;
        return pending;
    }
}
