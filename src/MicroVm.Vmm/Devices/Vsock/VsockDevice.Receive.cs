using System.Runtime.InteropServices;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Virtio;

namespace MicroVm.Vmm.Devices.Vsock;

/// <content>Host to guest: the receive queue.</content>
public sealed unsafe partial class VsockDevice
{
    /// <summary>Fills receive buffers: resets first, then a packet of each stream in line, again and again.</summary>
    /// <returns>True when the turn's budget ended it: there is more to do at once.</returns>
    private bool Receive()
    {
        Virtqueue rx = _rx!;
        rx.DisableNotifications();
        for (int i = 0; i < VsockLimits.TurnBudget; i++)
        {
            if (_resets.Count == 0 && _readyHead is null)
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
        VsockConnection? stream = _resets.Count == 0 ? NextReady() : null;
        if (_resets.Count == 0 && stream is null)
        {
            return false;
        }

        if (!rx.TryPop(chain))
        {
            return false;
        }

        if (chain.WritableLength <= VsockHeader.Size)
        {
            return rx.Break("a receive buffer has no room for a header and data (5.10.6)");
        }

        if (stream is null)
        {
            SendReset(rx, chain);
        }
        else
        {
            SendPacket(rx, chain, stream);
        }

        return true;
    }

    private void SendReset(Virtqueue rx, DescriptorChain chain)
    {
        _ = _resets.TryPeek(out PendingReset reset);
        VsockHeader header = new()
        {
            SourceCid = reset.HostCid,
            DestinationCid = _cid,
            SourcePort = reset.HostPort,
            DestinationPort = reset.GuestPort,
            Type = reset.Type,
            Operation = VsockOperation.Reset,
        };
        Complete(rx, chain, header);
        _resets.Dequeue();
        _counters.ResetsSent++;
    }

    private void SendPacket(Virtqueue rx, DescriptorChain chain, VsockConnection stream)
    {
        VsockHeader header = new()
        {
            SourceCid = VsockLimits.HostCid,
            DestinationCid = _cid,
            SourcePort = stream.HostPort,
            DestinationPort = stream.GuestPort,
            Type = VsockLimits.TypeStream,
        };
        if (!Fill(chain, stream, ref header))
        {
            rx.UndoPop();
            return;
        }

        header.BufferAllocation = stream.Buffer;
        header.ForwardCount = stream.Forwarded;
        stream.ForwardedSent = stream.Forwarded;
        stream.Pending &= ~VsockPending.CreditUpdate;
        Complete(rx, chain, header);
        if (header.Operation == VsockOperation.Shutdown && stream.SentShutdown == VsockShutdown.Both)
        {
            EnterClosing(stream);
        }

        Schedule(stream);
    }

    /// <summary>Chooses the stream's next packet; false when there is none after all.</summary>
    private bool Fill(DescriptorChain chain, VsockConnection stream, ref VsockHeader header)
    {
        if ((stream.Pending & VsockPending.Request) != 0)
        {
            stream.Pending &= ~VsockPending.Request;
            header.Operation = VsockOperation.Request;
            return true;
        }

        if ((stream.Pending & VsockPending.Response) != 0)
        {
            stream.Pending &= ~VsockPending.Response;
            header.Operation = VsockOperation.Response;
            return true;
        }

        if (stream.WantsData && stream.Credit != 0)
        {
            uint n = ReadSocket(chain, stream);
            if (n != 0)
            {
                stream.Sent += n;
                header.Operation = VsockOperation.Data;
                header.Length = n;
                _counters.ReceiveBytes += n;
                return true;
            }
        }

        if ((stream.Pending & VsockPending.Shutdown) != 0)
        {
            stream.Pending &= ~VsockPending.Shutdown;
            stream.SentShutdown |= WantedShutdown(stream);
            header.Operation = VsockOperation.Shutdown;
            header.Flags = (uint)stream.SentShutdown;
            return true;
        }

        if ((stream.Pending & VsockPending.CreditRequest) != 0)
        {
            stream.Pending &= ~VsockPending.CreditRequest;
            header.Operation = VsockOperation.CreditRequest;
            _counters.CreditRequestsSent++;
            return true;
        }

        header.Operation = VsockOperation.CreditUpdate;
        _counters.CreditUpdatesSent += (stream.Pending & VsockPending.CreditUpdate) != 0 ? 1 : 0;
        return (stream.Pending & VsockPending.CreditUpdate) != 0;
    }

    /// <summary>Reads from the socket straight into the receive buffer, behind the header's place.</summary>
    /// <returns>Payload bytes; 0 when there are none now or any more.</returns>
    private uint ReadSocket(DescriptorChain chain, VsockConnection stream)
    {
        Libc.iovec* vectors = stackalloc Libc.iovec[VsockLimits.MaxVectors];
        ulong limit = Math.Min(Math.Min(stream.Credit, VsockLimits.MaxPayload), chain.WritableLength - VsockHeader.Size);
        int count = chain.SliceWritable(
            VsockHeader.Size, limit, new Span<Libc.iovec>(vectors, VsockLimits.MaxVectors));
        nint n;
        do
        {
            n = Libc.readv(stream.Socket!.Value, vectors, count);
        }
        while (Check.Retry(n));
        if (n > 0)
        {
            return (uint)n;
        }

        stream.Readable = false;
        if (n < 0 && Check.LastErrno == Errno.EAGAIN)
        {
            return 0;
        }

        // End of file; or ECONNRESET, from a peer that closed without reading everything: it has gone altogether.
        stream.HungUp |= n < 0;
        stream.HostEnded = true;
        UpdateShutdown(stream);
        return 0;
    }

    private void Complete(Virtqueue rx, DescriptorChain chain, in VsockHeader header)
    {
        // The header lies in this method's caller's frame, and is copied whole into the guest's buffer.
        _ = chain.CopyToWritable(0, MemoryMarshal.AsBytes(new ReadOnlySpan<VsockHeader>(in header)));
        rx.PushUsed(chain.Head, VsockHeader.Size + header.Length);
        _counters.ReceivePackets++;
    }
}
