using System.Net.Sockets;
using System.Security.Cryptography;
using FsCheck;
using FsCheck.Fluent;
using MicroVm.Tests.Shared.Virtio;
using MicroVm.Vmm.Devices.Vsock;
using Xunit;

namespace MicroVm.Vmm.Tests.Devices;

/// <summary>
/// Streams of random bytes in random pieces, both ways at once, over real Unix sockets, against a guest that keeps the
/// credit rules: what goes in comes out, in order, and then the end of file.
/// </summary>
public sealed class VsockModelTests
{
    private sealed record Plan(int Seed, int Streams, int ToGuest, int ToHost, int GuestBuffer, int RxBuffers, bool Split);

    private static readonly Gen<Plan> Plans =
        from seed in Gen.Choose(0, int.MaxValue)
        from streams in Gen.Choose(1, 5)
        from toGuest in Gen.Choose(0, 400_000)
        from toHost in Gen.Choose(0, 900_000)
        from buffer in Gen.Elements(1000, 4096, 70_000, 262_144)
        from rx in Gen.Elements(1, 3, 20, 64)
        from split in Gen.Elements(true, false)
        select new Plan(seed, streams, toGuest, toHost, buffer, rx, split);

    [Fact]
    public void Bytes_arrive_whole_and_in_order_both_ways() =>
        Prop.ForAll(Plans.ToArbitrary(), Run).Check(Config.QuickThrowOnFailure.WithMaxTest(40));

    private static void Run(Plan plan)
    {
        Random random = new(plan.Seed);
        using VsockGuest guest = new(rxBuffers: plan.RxBuffers, split: plan.Split);
        List<Stream> streams = [];
        for (int i = 0; i < plan.Streams; i++)
        {
            streams.Add(Open(guest, plan, random, (uint)i));
        }

        int idle = 0;
        while (streams.Any(s => !s.Done))
        {
            Stream stream = streams[random.Next(streams.Count)];
            long before = streams.Sum(s => s.Progress);
            switch (random.Next(5))
            {
                case 0:
                    stream.HostSends(random);
                    break;
                case 1:
                    stream.HostReads(random);
                    break;
                case 2:
                    stream.GuestSends(guest, random);
                    break;
                case 3:
                    stream.GuestReads(guest, random);
                    break;
                default:
                    guest.Turn();
                    Sort(guest, streams);
                    break;
            }

            idle = streams.Sum(s => s.Progress) == before ? idle + 1 : 0;
            Assert.True(idle < 20_000, $"stuck: {string.Join("; ", streams)}");
        }

        Sort(guest, streams);
        foreach (Stream stream in streams)
        {
            stream.Check();
            guest.Send(VsockOperation.Reset, stream.GuestPort, stream.HostPort);
            stream.Host.Dispose();
        }

        Assert.Equal(0, guest.Counter("vsock.streams"));
        Assert.Equal(0, guest.Counter("vsock.protocol_violations"));
        Assert.Null(guest.Driver.NeedsReset);
    }

    private static Stream Open(VsockGuest guest, Plan plan, Random random, uint number)
    {
        if (random.Next(2) == 0)
        {
            (Socket client, uint port) = guest.Connect(100 + number, (uint)plan.GuestBuffer);
            return new Stream(client, port, 100 + number, plan, random);
        }

        using Socket listener = guest.Listen(200 + number);
        guest.Send(VsockOperation.Request, 300 + number, 200 + number, bufferAllocation: (uint)plan.GuestBuffer);
        guest.Expect(VsockOperation.Response);
        Socket server = listener.Accept();
        server.Blocking = false;
        return new Stream(server, 200 + number, 300 + number, plan, random);
    }

    private static void Sort(VsockGuest guest, List<Stream> streams)
    {
        while (guest.Inbox.TryDequeue(out VsockPacket? packet))
        {
            streams.Single(s => s.HostPort == packet.Header.SourcePort && s.GuestPort == packet.Header.DestinationPort).OnPacket(packet);
        }
    }

    private sealed class Stream(Socket host, uint hostPort, uint guestPort, Plan plan, Random random)
    {
        private readonly byte[] _toGuest = Bytes(random, plan.ToGuest);
        private readonly byte[] _toHost = Bytes(random, plan.ToHost);
        private readonly IncrementalHash _gotGuest = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        private readonly IncrementalHash _gotHost = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        private int _hostSent, _hostRead, _guestSent, _guestHeld, _guestRead;
        private uint _creditBuffer = VsockLimits.Buffer, _creditForwarded;
        private bool _hostShut, _guestShut, _hostSawEnd, _guestSawEnd;

        public Socket Host => host;

        public uint HostPort => hostPort;

        public uint GuestPort => guestPort;

        public bool Done => _hostSawEnd && _guestSawEnd;

        public long Progress => _hostSent + _hostRead + _guestSent + _guestRead + _guestHeld
            + (_hostShut ? 1 : 0) + (_guestShut ? 1 : 0) + (_hostSawEnd ? 1 : 0) + (_guestSawEnd ? 1 : 0);

        public override string ToString() =>
            $"{hostPort}/{guestPort}: host sent {_hostSent}/{_toGuest.Length} read {_hostRead}, guest sent {_guestSent}/{_toHost.Length} read {_guestRead} held {_guestHeld}, ends {_hostShut}{_guestShut}{_hostSawEnd}{_guestSawEnd}";

        public void HostSends(Random random)
        {
            int n = Math.Min(_toGuest.Length - _hostSent, random.Next(1, 100_000));
            if (n > 0)
            {
                int sent = host.Send(_toGuest.AsSpan(_hostSent, n), SocketFlags.None, out _);
                _hostSent += Math.Max(sent, 0);
            }
            else if (!_hostShut)
            {
                host.Shutdown(SocketShutdown.Send);
                _hostShut = true;
            }
        }

        public void HostReads(Random random)
        {
            byte[] buffer = new byte[random.Next(1, 100_000)];
            int n = host.Receive(buffer, SocketFlags.None, out SocketError error);
            if (error == SocketError.Success)
            {
                _gotHost.AppendData(buffer, 0, n);
                _hostRead += n;
                _hostSawEnd |= n == 0;
            }
        }

        public void GuestSends(VsockGuest guest, Random random)
        {
            uint free = _creditBuffer - ((uint)_guestSent - _creditForwarded);
            int left = _toHost.Length - _guestSent;
            int n = Math.Min(Math.Min(left, (int)free), random.Next(1, 65_536));
            if (n > 0)
            {
                VsockHeader header = Header(VsockOperation.Data, n);
                if (guest.TrySend(header, _toHost.AsSpan(_guestSent, n)))
                {
                    _guestSent += n;
                }
            }
            else if (left == 0 && !_guestShut)
            {
                VsockHeader header = Header(VsockOperation.Shutdown, 0);
                header.Flags = 2;
                _guestShut = guest.TrySend(header);
            }
        }

        public void GuestReads(VsockGuest guest, Random random)
        {
            int n = Math.Min(_guestHeld, random.Next(1, plan.GuestBuffer + 1));
            if (n > 0)
            {
                _guestHeld -= n;
                _guestRead += n;
                _ = guest.TrySend(Header(VsockOperation.CreditUpdate, 0));
            }
        }

        public void OnPacket(VsockPacket packet)
        {
            (_creditBuffer, _creditForwarded) = (packet.Header.BufferAllocation, packet.Header.ForwardCount);
            switch (packet.Header.Operation)
            {
                case VsockOperation.Data:
                    Assert.False(_guestSawEnd);
                    _gotGuest.AppendData(packet.Payload);
                    _guestHeld += packet.Payload.Length;
                    Assert.True(_guestHeld <= plan.GuestBuffer, "more than the guest's credit");
                    break;
                case VsockOperation.Shutdown:
                    _guestSawEnd |= (packet.Header.Flags & 2) != 0;
                    break;
                case VsockOperation.CreditUpdate or VsockOperation.CreditRequest:
                    break;
                default:
                    Assert.Fail($"unexpected {packet}");
                    break;
            }
        }

        public void Check()
        {
            Assert.Equal((_toGuest.Length, _toHost.Length), (_guestRead + _guestHeld, _hostRead));
            Assert.Equal(SHA256.HashData(_toGuest), _gotGuest.GetHashAndReset());
            Assert.Equal(SHA256.HashData(_toHost), _gotHost.GetHashAndReset());
        }

        private VsockHeader Header(VsockOperation operation, int length)
        {
            VsockHeader header = VsockGuest.Header(operation, guestPort, hostPort, length);
            header.BufferAllocation = (uint)plan.GuestBuffer;
            header.ForwardCount = (uint)_guestRead;
            return header;
        }

        private static byte[] Bytes(Random random, int length)
        {
            byte[] bytes = new byte[random.Next(length + 1)];
            random.NextBytes(bytes);
            return bytes;
        }
    }
}
