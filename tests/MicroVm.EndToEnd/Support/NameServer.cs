using System.Buffers.Binary;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;
using MicroVm.Linux.Netlink;

namespace MicroVm.EndToEnd.Support;

/// <summary>
/// A name server (RFC 1035) at port 53 of a network namespace, by UDP and TCP. <c>name.test</c> has the address 203.0.113.7,
/// <c>many-N.test</c> those from 198.18.0.1 on, N of them; there is nothing else. What is too long for a datagram, whose limit the
/// client may raise (RFC 6891), is cut there, and whole by TCP.
/// </summary>
internal sealed class NameServer : IDisposable
{
    private const int HeaderLength = 12;
    private const int UsualDatagram = 512;
    private const ushort TypeA = 1;
    private const ushort TypeOpt = 41;
    private readonly Socket _datagrams;
    private readonly Socket _listener;
    private int _longest;
    private int _byTcp;

    /// <summary>Starts to answer.</summary>
    /// <param name="path">The network namespace.</param>
    public NameServer(string path)
    {
        using NetworkNamespace ns = NetworkNamespace.Open(path);
        _datagrams = ns.Run(() => Bound(SocketType.Dgram, ProtocolType.Udp));
        _listener = ns.Run(() => Bound(SocketType.Stream, ProtocolType.Tcp));
        _listener.Listen();
        new Thread(() => UntilDisposed(AnswerDatagram)) { IsBackground = true }.Start();
        new Thread(() => UntilDisposed(AnswerConnection)) { IsBackground = true }.Start();
    }

    /// <summary>Bytes of the longest answer that was sent as a datagram.</summary>
    public int LongestDatagram => Volatile.Read(ref _longest);

    /// <summary>Answers by TCP.</summary>
    public int ByTcp => Volatile.Read(ref _byTcp);

    public void Dispose()
    {
        _datagrams.Dispose();
        _listener.Dispose();
    }

    private static Socket Bound(SocketType type, ProtocolType protocol)
    {
        Socket socket = new(AddressFamily.InterNetworkV6, type, protocol) { DualMode = true };
        socket.Bind(new IPEndPoint(IPAddress.IPv6Any, 53));
        return socket;
    }

    private static void UntilDisposed(Action answer)
    {
        try
        {
            while (true)
            {
                try
                {
                    answer();
                }
                catch (IOException)
                {
                    // The client went away.
                }
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // That is how the test ends it.
        }
    }

    private void AnswerDatagram()
    {
        byte[] buffer = new byte[4096];
        EndPoint from = new IPEndPoint(IPAddress.IPv6Any, 0);
        int n = _datagrams.ReceiveFrom(buffer, ref from);
        byte[] reply = Answer(buffer.AsSpan(0, n), out int limit);
        if (reply.Length > limit)
        {
            // The question alone, and the bit that says that there is more.
            const byte Truncated = 2;
            reply = reply[..QuestionEnd(reply)];
            reply[2] |= Truncated;
            reply.AsSpan(6, 6).Clear();
        }

        Volatile.Write(ref _longest, Math.Max(_longest, reply.Length));
        _datagrams.SendTo(reply, from);
    }

    private void AnswerConnection()
    {
        using NetworkStream stream = new(_listener.Accept(), ownsSocket: true);
        byte[] length = new byte[2];
        stream.ReadExactly(length);
        byte[] query = new byte[BinaryPrimitives.ReadUInt16BigEndian(length)];
        stream.ReadExactly(query);
        byte[] reply = Answer(query, out _);
        BinaryPrimitives.WriteUInt16BigEndian(length, (ushort)reply.Length);
        stream.Write([.. length, .. reply]);
        Interlocked.Increment(ref _byTcp);
    }

    private static int QuestionEnd(ReadOnlySpan<byte> message)
    {
        int at = HeaderLength;
        while (message[at] != 0)
        {
            at += 1 + message[at];
        }

        return at + 5;
    }

    private static byte[] Answer(ReadOnlySpan<byte> query, out int limit)
    {
        int end = QuestionEnd(query);
        List<string> labels = [];
        for (int at = HeaderLength; query[at] != 0; at += 1 + query[at])
        {
            labels.Add(Encoding.ASCII.GetString(query.Slice(at + 1, query[at])));
        }

        // The client's OPT record: the root's name, type, and its largest datagram for a class.
        bool extended = query.Length >= end + 11 && BinaryPrimitives.ReadUInt16BigEndian(query[(end + 1)..]) == TypeOpt;
        limit = extended ? BinaryPrimitives.ReadUInt16BigEndian(query[(end + 3)..]) : UsualDatagram;

        string name = string.Join('.', labels);
        uint first = 0xcb007107, count = name == "name.test" ? 1u : 0;
        if (labels is [{ } host, "test"] && host.StartsWith("many-", StringComparison.Ordinal))
        {
            (first, count) = (0xc6120001, uint.Parse(host.AsSpan(5), CultureInfo.InvariantCulture));
        }

        bool known = count > 0;
        count = BinaryPrimitives.ReadUInt16BigEndian(query[(end - 4)..]) == TypeA ? count : 0;
        byte[] reply = new byte[end + (16 * count)];
        query[..end].CopyTo(reply);
        reply[2] = 0x81; // an answer, recursion as asked for
        reply[3] = known ? (byte)0x80 : (byte)0x83; // available; no such name
        BinaryPrimitives.WriteUInt16BigEndian(reply.AsSpan(4), 1);
        BinaryPrimitives.WriteUInt16BigEndian(reply.AsSpan(6), (ushort)count);
        reply.AsSpan(8, 4).Clear();
        for (uint i = 0; i < count; i++)
        {
            // The question's name, address, of the Internet, a minute, four bytes.
            Span<byte> record = reply.AsSpan(end + (16 * (int)i), 16);
            ((ReadOnlySpan<byte>)[0xc0, HeaderLength, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]).CopyTo(record);
            BinaryPrimitives.WriteUInt32BigEndian(record[12..], first + i);
        }

        return reply;
    }
}
