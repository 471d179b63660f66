using MicroVm.Linux.Native;
using Xunit;

namespace MicroVm.Linux.Tests;

public sealed unsafe class SocketBridgeTests : IDisposable
{
    private readonly EventLoop _loop = new();
    private readonly SafeFd _left;
    private readonly SafeFd _right;
    private bool _ended;

    public SocketBridgeTests()
    {
        (_left, SafeFd a) = UnixSocket.Pair(nonBlocking: true);
        (_right, SafeFd b) = UnixSocket.Pair(nonBlocking: true);
        _ = new SocketBridge(_loop, a, b, () => _ended = true);
    }

    public void Dispose()
    {
        _left.Dispose();
        _right.Dispose();
        _loop.Dispose();
    }

    [Fact]
    public void Bytes_go_both_ways_and_each_end_by_itself()
    {
        byte[] big = new byte[3 << 20];
        new Random(1).NextBytes(big);
        int sent = 0;
        List<byte> got = [];
        while (got.Count < big.Length)
        {
            sent += Send(_left, big.AsSpan(sent));
            _loop.RunOnce(0);
            got.AddRange(Receive(_right) ?? []);
        }

        Assert.Equal(big, got);
        Assert.Equal(5, Send(_right, "reply"u8));
        Assert.Equal("reply"u8.ToArray(), Await(_left));
        Assert.Equal(0, Libc.shutdown(_left.Value, Libc.SHUT_WR));
        Assert.Empty(Await(_right));
        Assert.Equal(4, Send(_right, "last"u8));
        Assert.Equal("last"u8.ToArray(), Await(_left));
        Assert.False(_ended);
        Assert.Equal(0, Libc.shutdown(_right.Value, Libc.SHUT_WR));
        Assert.Empty(Await(_left));
        Assert.True(_ended);
    }

    [Fact]
    public void A_greeting_goes_before_what_is_sent()
    {
        (SafeFd left, SafeFd a) = UnixSocket.Pair(nonBlocking: true);
        (SafeFd right, SafeFd b) = UnixSocket.Pair(nonBlocking: true);
        using SafeFd sender = left, receiver = right;
        using SocketBridge bridge = new(_loop, a, b, () => { }, "hello "u8);
        Assert.Equal("hello "u8.ToArray(), Await(receiver));
        Assert.Equal(5, Send(sender, "world"u8));
        Assert.Equal("world"u8.ToArray(), Await(receiver));
        Assert.Equal(5, Send(receiver, "reply"u8));
        Assert.Equal("reply"u8.ToArray(), Await(sender));
    }

    [Fact]
    public void Who_sends_a_descriptor_has_the_connection_closed()
    {
        FdSender.Send(_left, "fd"u8, [_right]);
        for (int i = 0; i < 100 && !_ended; i++)
        {
            _loop.RunOnce(0);
        }

        Assert.True(_ended);
        Assert.Equal(0, Receive(_left)?.Length ?? 0);
        Assert.Equal(0, Receive(_right)?.Length ?? 0);
    }

    [Fact]
    public void What_was_sent_before_a_close_arrives()
    {
        byte[] big = new byte[1 << 20];
        int sent = 0;
        for (int before = -1; before != sent;)
        {
            before = sent;
            sent += Send(_left, big.AsSpan(sent));
            _loop.RunOnce(0);
        }

        // Nobody reads yet: the bridge must neither lose it nor spin.
        _left.Dispose();
        int got = 0;
        for (byte[]? part = []; part is null || part.Length > 0 || got == 0;)
        {
            _loop.RunOnce(0);
            part = Receive(_right);
            got += part?.Length ?? 0;
        }

        Assert.Equal(sent, got);
        Assert.True(_ended);
    }

    [Fact]
    public void A_reader_that_went_ends_the_bridge()
    {
        _right.Dispose();
        for (int i = 0; i < 100 && !_ended; i++)
        {
            _ = Send(_left, "x"u8);
            _loop.RunOnce(10);
        }

        Assert.True(_ended);
    }

    private byte[] Await(SafeFd fd)
    {
        while (true)
        {
            if (Receive(fd) is { } bytes)
            {
                return bytes;
            }

            _loop.RunOnce(1000);
        }
    }

    private static int Send(SafeFd fd, ReadOnlySpan<byte> bytes)
    {
        fixed (byte* p = bytes)
        {
            return (int)Math.Max(0, Libc.send(fd.Value, p, (nuint)bytes.Length, Libc.MSG_NOSIGNAL));
        }
    }

    // Null: nothing yet; empty: the end.
    private static byte[]? Receive(SafeFd fd)
    {
        byte[] buffer = new byte[65536];
        fixed (byte* p = buffer)
        {
            nint n = Libc.recv(fd.Value, p, (nuint)buffer.Length, 0);
            return n < 0 ? null : buffer[..(int)n];
        }
    }
}
