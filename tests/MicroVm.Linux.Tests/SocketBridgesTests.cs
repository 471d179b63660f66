using MicroVm.Linux.Native;
using Xunit;

namespace MicroVm.Linux.Tests;

public sealed unsafe class SocketBridgesTests : IDisposable
{
    private readonly EventLoop _loop = new();
    private readonly SocketBridges _bridges;
    private readonly List<SafeFd> _ends = [];

    public SocketBridgesTests() => _bridges = new SocketBridges(_loop, 2);

    public void Dispose()
    {
        _bridges.CloseAll();
        _ends.ForEach(e => e.Dispose());
        _loop.Dispose();
    }

    [Fact]
    public void A_bridge_that_ends_makes_room()
    {
        Assert.Equal(Errno.OK, _bridges.Join(End(), End()));
        Assert.False(_bridges.IsFull);
        Assert.Equal(Errno.OK, _bridges.Join(End(), End()));
        Assert.True(_bridges.IsFull);
        _ends[0].Dispose();
        _ends[1].Dispose();
        for (int i = 0; i < 10 && _bridges.IsFull; i++)
        {
            _ = _loop.RunOnce(0);
        }

        Assert.Equal(1, _bridges.Count);
    }

    [Fact]
    public void A_socket_that_cannot_be_watched_leaves_no_bridge()
    {
        using SafeFd file = SafeFd.From(Libc.open("/etc/passwd", Libc.O_RDONLY | Libc.O_CLOEXEC, 0), "open");
        Assert.Equal(Errno.EPERM, _bridges.Join(End(), file));
        Assert.Equal(0, _bridges.Count);
        Assert.True(IsAtItsEnd(_ends[0]));
    }

    [Fact]
    public void All_are_closed_with_their_owner()
    {
        Assert.Equal(Errno.OK, _bridges.Join(End(), End()));
        _bridges.CloseAll();
        Assert.Equal(0, _bridges.Count);
        Assert.All(_ends, e => Assert.True(IsAtItsEnd(e)));
    }

    private static bool IsAtItsEnd(SafeFd socket)
    {
        byte b;
        return Libc.recv(socket.Value, &b, 1, Libc.MSG_DONTWAIT) == 0;
    }

    private SafeFd End()
    {
        (SafeFd mine, SafeFd theirs) = UnixSocket.Pair(nonBlocking: true);
        _ends.Add(mine);
        return theirs;
    }
}
