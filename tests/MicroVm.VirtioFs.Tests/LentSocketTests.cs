using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VmmControl;
using Xunit;

namespace MicroVm.VirtioFs.Tests;

/// <summary>Sockets that the guest makes where the host is to listen in its place.</summary>
public sealed unsafe class LentSocketTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("microvm-lent-").FullName;
    private readonly SafeFd _channel;
    private readonly FuseClient _fs;
    private readonly ulong _shared;
    private readonly ulong _plain;

    public LentSocketTests()
    {
        Directory.CreateDirectory(this["shared/sub"]);
        Directory.CreateDirectory(this["plain"]);
        (_channel, SafeFd vmm) = UnixSocket.Pair(nonBlocking: true, Libc.SOCK_SEQPACKET);
        _fs = new FuseClient(vmm, FuseClient.Export("shared", this["shared"]) with { SharesSockets = true }, FuseClient.Export("plain", this["plain"]));
        (_shared, _plain) = (_fs.Lookup(1, "shared").nodeid, _fs.Lookup(1, "plain").nodeid);
    }

    public void Dispose()
    {
        _fs.Dispose();
        _channel.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    private string this[string name] => Path.Combine(_folder, name);

    [Fact]
    public void TheNameIsThatOfASocketThatTheHostListensOn()
    {
        using SafeFd socket = Lend(5);
        ulong node = Make(_fs.Lookup(_shared, "sub").nodeid, "s", 0x1C8);
        SocketNotice bound = Next()!.Value;
        Assert.Equal((SocketNoticeKind.Bound, 5u, node), (bound.Kind, bound.Slot, bound.Node));
        Libc.statx_t stat;
        fixed (byte* path = FuseClient.Text(this["shared/sub/s"]))
        {
            Assert.Equal(0, Libc.statx(Libc.AT_FDCWD, path, Libc.AT_SYMLINK_NOFOLLOW, Libc.STATX_INO | Libc.STATX_MODE, &stat));
        }

        Assert.Equal((bound.Inode, Libc.S_IFSOCK | 0x1C8), (stat.stx_ino, stat.stx_mode));
        Assert.Equal(0, Libc.listen(socket.Value, 1));
        UnixSocket.Connect(this["shared/sub/s"]).Dispose();
    }

    [Fact]
    public void WithoutALentSocketOrTheExportsLeaveTheNameIsTheGuestsAlone()
    {
        _ = Make(_shared, "none", 0x1FF);
        using SafeFd socket = Lend(0);
        _ = Make(_plain, "s", 0x1FF);
        Assert.Null(Next());
        Assert.True(Libc.listen(socket.Value, 1) < 0);
        Assert.Equal(Errno.ECONNREFUSED, Assert.Throws<LinuxException>(() => UnixSocket.Connect(this["plain/s"])).Errno);
    }

    [Fact]
    public void ANameThatIsTakenLeavesTheSocketForTheNext()
    {
        using SafeFd socket = Lend(1);
        File.WriteAllText(this["shared/taken"], "");
        Assert.Equal(Errno.EEXIST, _fs.Error(FuseOpcode.FUSE_MKNOD, _shared, FuseClient.NodeArgs("taken", Libc.S_IFSOCK | 0x1FF)));
        Assert.Null(Next());
        _ = Make(_shared, "free", 0x1FF);
        Assert.Equal(1u, Next()!.Value.Slot);
    }

    [Fact]
    public void AnInodeThatTheGuestForgetsOrWhoseExportGoesIsReleased()
    {
        using SafeFd first = Lend(2), second = Lend(3);
        ulong node = Make(_shared, "first", 0x1FF);
        _ = Make(_shared, "second", 0x1FF);
        Assert.Equal((2u, 3u), (Next()!.Value.Slot, Next()!.Value.Slot));
        _fs.Forget(node, 1);
        Assert.Equal((SocketNoticeKind.Released, 2u), Wait());
        Assert.True(_fs.Guest.Device.RemoveExport("shared"));
        Assert.Equal((SocketNoticeKind.Released, 3u), Wait());
    }

    [Fact]
    public void ANameThatNoAddressHoldsIsTheGuestsAlone()
    {
        using SafeFd socket = Lend(4);
        string name = new('n', 150);
        _ = Make(_shared, name, 0x1FF);
        Assert.Null(Next());
        Assert.True(Path.Exists(this["shared/" + name]));
    }

    private ulong Make(ulong parent, string name, uint mode) =>
        FuseClient.Parse<fuse_entry_out>(_fs.Ok(FuseOpcode.FUSE_MKNOD, parent, FuseClient.NodeArgs(name, Libc.S_IFSOCK | mode))).nodeid;

    private SafeFd Lend(uint slot)
    {
        SafeFd socket = SafeFd.From(Libc.socket(Libc.AF_UNIX, Libc.SOCK_STREAM | Libc.SOCK_CLOEXEC, 0), "socket");
        SocketNotice notice = new() { Kind = SocketNoticeKind.Lent, Slot = slot };
        FdSender.Send(_channel, new ReadOnlySpan<byte>(&notice, sizeof(SocketNotice)), [socket]);
        return socket;
    }

    private SocketNotice? Next()
    {
        SocketNotice notice;
        return Libc.recv(_channel.Value, &notice, (nuint)sizeof(SocketNotice), Libc.MSG_DONTWAIT) == sizeof(SocketNotice) ? notice : null;
    }

    // FORGET has no answer.
    private (SocketNoticeKind Kind, uint Slot) Wait()
    {
        Libc.pollfd poll = new() { fd = _channel.Value, events = Libc.POLLIN };
        Assert.Equal(1, Libc.poll(&poll, 1, 10_000));
        SocketNotice notice = Next()!.Value;
        return (notice.Kind, notice.Slot);
    }
}
