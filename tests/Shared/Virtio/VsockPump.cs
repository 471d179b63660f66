using System.Net.Sockets;
using System.Runtime.InteropServices;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Devices.Vsock;

namespace MicroVm.Tests.Shared.Virtio;

/// <summary>Pushes payload through an established stream without allocating: for allocation checks and benchmarks.</summary>
internal sealed unsafe class VsockPump
{
    private readonly GuestDriver _driver;
    private readonly int _fd;
    private readonly uint _guestPort;
    private readonly uint _hostPort;
    private readonly ulong _txBuffer;
    private readonly byte[] _host = GC.AllocateArray<byte>(1 << 16, pinned: true);
    private readonly ulong[] _rx = new ulong[64];
    private uint _forwarded;
    private uint _forwardedSent;

    public VsockPump(VsockGuest guest, Socket client, uint guestPort, uint hostPort)
    {
        _driver = guest.Driver;
        _fd = (int)client.Handle;
        _guestPort = guestPort;
        _hostPort = hostPort;
        _txBuffer = _driver.Allocate(VsockHeader.Size + (1 << 16));

        // From here on the pump owns the receive buffers: the guest's own were posted with equal lengths.
        guest.Turn();
        DriverQueue rx = _driver.Queues[0];
        for (int i = 0; i < rx.Layout.Size; i++)
        {
            _rx[i] = rx.Table[i].Address;
        }
    }

    /// <summary>Packets and credit updates both ways.</summary>
    public void RoundTrips(int count)
    {
        for (int i = 0; i < count; i++)
        {
            HostToGuest(3000);
            GuestToHost(4096);
        }
    }

    /// <summary>One packet from the host's socket into a receive buffer.</summary>
    public void HostToGuest(int length)
    {
        fixed (byte* p = _host)
        {
            _ = Libc.send(_fd, p, (nuint)length, 0);
        }

        int got = 0;
        while (got < length)
        {
            _driver.Loop.RunOnce(0);
            got += Take();
        }

        // As Linux does: a credit update before the sender runs out.
        if (_forwarded - _forwardedSent > 128 * 1024)
        {
            Transmit(VsockOperation.CreditUpdate, 0);
            _driver.Loop.RunOnce(0);
            Reap();
        }
    }

    /// <summary>One packet from a transmit buffer into the host's socket.</summary>
    public void GuestToHost(int length)
    {
        Transmit(VsockOperation.Data, length);
        int got = 0;
        fixed (byte* p = _host)
        {
            while (got < length)
            {
                _driver.Loop.RunOnce(0);
                nint n = Libc.recv(_fd, p, (nuint)(length - got), Libc.MSG_DONTWAIT);
                got += n > 0 ? (int)n : 0;
            }
        }

        Reap();
        _ = Take();
    }

    private void Transmit(VsockOperation operation, int length)
    {
        VsockHeader header = VsockGuest.Header(operation, _guestPort, _hostPort, length);
        header.ForwardCount = _forwardedSent = _forwarded;
        MemoryMarshal.AsBytes(new Span<VsockHeader>(ref header)).CopyTo(_driver.Span(_txBuffer, VsockHeader.Size));
        _driver.Queues[1].Add(new Segment(_txBuffer, (uint)(VsockHeader.Size + length), false));
        _driver.Queues[1].Notify();
    }

    private void Reap()
    {
        while (_driver.Queues[1].TryTakeUsed(out _, out _))
        {
        }
    }

    private int Take()
    {
        int payload = 0;
        DriverQueue rx = _driver.Queues[0];
        while (rx.TryTakeUsed(out ushort head, out _))
        {
            VsockHeader header = MemoryMarshal.Read<VsockHeader>(_driver.Span(_rx[head], VsockHeader.Size));
            if (header.Operation == VsockOperation.Data)
            {
                payload += (int)header.Length;
                _forwarded += header.Length;
            }

            // A one-descriptor chain takes the descriptor just freed: the buffer keeps its number.
            _ = rx.Add(new Segment(_rx[head], VsockHeader.Size + 4096, true));
            rx.Notify();
        }

        return payload;
    }
}
