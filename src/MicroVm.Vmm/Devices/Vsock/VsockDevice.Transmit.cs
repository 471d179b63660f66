using System.Buffers.Text;
using System.Runtime.InteropServices;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Virtio;

namespace MicroVm.Vmm.Devices.Vsock;

/// <content>Guest to host: the transmit queue. Everything in it comes from the guest and is checked.</content>
public sealed unsafe partial class VsockDevice
{
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
            if (_resets.IsFull)
            {
                // Each packet can ask for a reset: none is taken until the driver gives receive buffers (5.10.6.1).
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

            Handle(chain);
            tx.PushUsed(chain.Head, 0);
            _counters.TransmitPackets++;
        }

        return true;
    }

    private void Handle(DescriptorChain chain)
    {
        VsockHeader header = default;
        int n = chain.CopyFromReadable(0, MemoryMarshal.AsBytes(new Span<VsockHeader>(ref header)));
        if (n != VsockHeader.Size || header.SourceCid != _cid)
        {
            // Nobody to answer: without a header, or in another guest's name.
            _counters.Dropped++;
            return;
        }

        bool ours = header.DestinationCid == VsockLimits.HostCid && header.Type == VsockLimits.TypeStream;
        VsockConnection? stream = null;
        if (ours)
        {
            _ = _streams.TryGetValue(VsockConnection.MakeKey(header.DestinationPort, header.SourcePort), out stream);
        }

        if (header.Operation == VsockOperation.Reset)
        {
            // Never answered, so that resets cannot chase each other.
            if (stream is not null)
            {
                OnReset(stream);
            }
        }
        else if (!ours || header.Length > chain.ReadableLength - VsockHeader.Size)
        {
            Violation(stream, header);
        }
        else if (stream is not null)
        {
            Dispatch(chain, stream, header);
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

    private void Dispatch(DescriptorChain chain, VsockConnection stream, in VsockHeader header)
    {
        if (!stream.TakeCredit(header))
        {
            Violation(stream, header);
            return;
        }

        switch (header.Operation)
        {
            case VsockOperation.Response when stream.State == VsockState.Requested && stream.Pending == VsockPending.None:
                Accepted(stream);
                break;
            case VsockOperation.Data when stream.State is VsockState.Established or VsockState.Closing
                && (stream.GuestShutdown & VsockShutdown.Send) == 0:
                OnData(chain, stream, header);
                break;
            case VsockOperation.CreditUpdate when stream.State != VsockState.Requested:
                break;
            case VsockOperation.CreditRequest when stream.State != VsockState.Requested:
                stream.Pending |= VsockPending.CreditUpdate;
                break;
            case VsockOperation.Shutdown when stream.State != VsockState.Requested:
                OnShutdown(stream, (VsockShutdown)(header.Flags & (uint)VsockShutdown.Both));
                break;
            default:
                Violation(stream, header);
                return;
        }

        Schedule(stream);
    }

    /// <summary>The guest broke the protocol: the flow is reset, the queue goes on.</summary>
    private void Violation(VsockConnection? stream, in VsockHeader header)
    {
        _counters.ProtocolViolations++;
        if (stream is not null)
        {
            Drop(stream);
        }

        QueueReset(header.DestinationCid, header.DestinationPort, header.SourcePort, header.Type);
    }

    private void OnReset(VsockConnection stream)
    {
        if (stream.State == VsockState.Requested)
        {
            _counters.Refused++;
        }

        EndGuestSide(stream);
    }

    private void OnRequest(in VsockHeader header)
    {
        SafeFd? socket = null;
        if (_all.Count < VsockLimits.MaxConnections)
        {
            Span<byte> path = stackalloc byte[UnixSocket.MaxPathBytes];
            _pathBytes.CopyTo(path);
            path[_pathBytes.Length] = (byte)'_';
            _ = Utf8Formatter.TryFormat(header.DestinationPort, path[(_pathBytes.Length + 1)..], out int digits);
            socket = UnixSocket.TryConnect(path[..(_pathBytes.Length + 1 + digits)], out _);
        }

        VsockConnection? stream = socket is null ? null : Open(socket, VsockState.Established);
        if (stream is null)
        {
            _counters.Refused++;
            QueueReset(VsockLimits.HostCid, header.DestinationPort, header.SourcePort, VsockLimits.TypeStream);
            return;
        }

        stream.HostPort = header.DestinationPort;
        stream.GuestPort = header.SourcePort;
        stream.Pending = VsockPending.Response;
        _streams.Add(stream.Key, stream);
        _counters.GuestConnects++;
        if (!stream.TakeCredit(header))
        {
            Violation(stream, header);
            return;
        }

        Schedule(stream);
    }

    private void OnShutdown(VsockConnection stream, VsockShutdown flags)
    {
        stream.GuestShutdown |= flags;
        if ((flags & VsockShutdown.Receive) != 0)
        {
            // The host's writers are told; what they had sent is not wanted any more.
            stream.HostEnded = true;
            if (stream.Socket is { } socket)
            {
                _ = Libc.shutdown(socket.Value, Libc.SHUT_RD);
            }
        }

        if (stream.Backlog == 0)
        {
            Drained(stream);
        }
    }

    /// <summary>Everything that the guest sent has been written (or discarded): passes on what it said about the end.</summary>
    private void Drained(VsockConnection stream)
    {
        if (stream.State == VsockState.Lingering)
        {
            Drop(stream);
            return;
        }

        if ((stream.GuestShutdown & VsockShutdown.Send) != 0 && !stream.WriteShut && stream.Socket is { } socket)
        {
            stream.WriteShut = true;
            _ = Libc.shutdown(socket.Value, Libc.SHUT_WR);
        }

        if (stream.GuestShutdown == VsockShutdown.Both)
        {
            // A clean end: the reset is the answer that the guest waits for (5.10.6.5).
            ResetStream(stream, tellGuest: true);
        }
        else
        {
            UpdateShutdown(stream);
        }
    }

    private void OnData(DescriptorChain chain, VsockConnection stream, in VsockHeader header)
    {
        uint length = header.Length;
        if (length > stream.Buffer - (stream.Received - stream.Forwarded))
        {
            _counters.CreditViolations++;
            Violation(stream, header);
            return;
        }

        stream.Received += length;
        _counters.TransmitBytes += length;
        uint written = 0;
        if (stream.Backlog == 0)
        {
            written = WriteSocket(chain, stream, length);
        }

        if (stream.HostDeaf || stream.State == VsockState.Closing)
        {
            stream.Forwarded = stream.Received;
        }
        else if (written < length && !Keep(chain, stream, VsockHeader.Size + written, length - written))
        {
            // No memory for what was promised: the stream cannot go on, the others can.
            ResetStream(stream, tellGuest: true);
            return;
        }

        UpdateCredit(stream);
    }

    private bool Keep(DescriptorChain chain, VsockConnection stream, uint offset, uint length)
    {
        stream.Ring ??= _rings.TryRent((int)stream.Buffer);
        _counters.BufferedBytes += length;
        return stream.Ring is { } ring && ring.TryAppend(chain, offset, length);
    }

    /// <summary>Writes payload from the transmit buffer straight to the socket.</summary>
    /// <returns>How many bytes it took before it was full.</returns>
    private uint WriteSocket(DescriptorChain chain, VsockConnection stream, uint length)
    {
        Libc.iovec* vectors = stackalloc Libc.iovec[VsockLimits.MaxVectors];
        uint done = 0;
        while (done < length && stream.Writable && !stream.HostDeaf && stream.Socket is { } socket)
        {
            int count = chain.SliceReadable(
                VsockHeader.Size + done, length - done, new Span<Libc.iovec>(vectors, VsockLimits.MaxVectors));
            done += Send(stream, socket, vectors, count);
        }

        return done;
    }

    /// <summary>Writes what waits in the ring, and what then follows.</summary>
    private void Flush(VsockConnection stream)
    {
        if (stream.Ring is not { } ring)
        {
            return;
        }

        Libc.iovec* vectors = stackalloc Libc.iovec[2];
        while (ring.Count != 0 && stream.Writable && !stream.HostDeaf && stream.Socket is { } socket)
        {
            int count = ring.Peek(vectors);
            ring.Consume(Send(stream, socket, vectors, count));
        }

        if (stream.HostDeaf || ring.Count == 0)
        {
            ReturnRing(stream);
            UpdateCredit(stream);
            Drained(stream);
        }
        else
        {
            UpdateCredit(stream);
        }
    }

    /// <summary>One sendmsg(2); its failure tells on the stream.</summary>
    private uint Send(VsockConnection stream, SafeFd socket, Libc.iovec* vectors, int count)
    {
        Libc.msghdr message = new() { msg_iov = vectors, msg_iovlen = (nuint)count };
        nint n;
        do
        {
            n = Libc.sendmsg(socket.Value, &message, Libc.MSG_DONTWAIT | Libc.MSG_NOSIGNAL);
        }
        while (Check.Retry(n));
        if (n >= 0)
        {
            stream.Forwarded += (uint)n;
            return (uint)n;
        }

        Errno errno = Check.LastErrno;
        if (errno == Errno.EAGAIN)
        {
            stream.Writable = false;
        }
        else if (errno is Errno.ENOBUFS or Errno.ENOMEM)
        {
            // No edge follows when the host has memory again: have readiness reported anew.
            stream.Writable = false;
            _loop.Modify(socket, SocketEvents);
        }
        else
        {
            // EPIPE, ECONNRESET: nobody reads there any more.
            stream.HostDeaf = true;
            stream.Forwarded = stream.Received;
        }

        return 0;
    }

    /// <summary>Nobody reads the socket any more: what waits is discarded, and the guest's credit with it restored.</summary>
    private void StopWriting(VsockConnection stream)
    {
        stream.HostDeaf = true;
        stream.Forwarded = stream.Received;
        ReturnRing(stream);
    }

    /// <summary>
    /// Tells the guest of room before it runs out of credit, but not for every few bytes: when it believes to have less
    /// than half, and a quarter or everything was freed.
    /// </summary>
    private void UpdateCredit(VsockConnection stream)
    {
        uint believed = stream.Buffer - (stream.Received - stream.ForwardedSent);
        uint freed = stream.Forwarded - stream.ForwardedSent;
        if (stream.State == VsockState.Established && freed != 0 && believed < stream.Buffer / 2
            && (freed >= stream.Buffer / 4 || stream.Backlog == 0))
        {
            stream.Pending |= VsockPending.CreditUpdate;
            Schedule(stream);
        }

        if (stream.HostDeaf)
        {
            UpdateShutdown(stream);
        }
    }
}
