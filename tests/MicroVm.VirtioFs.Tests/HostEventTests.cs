using System.Runtime.CompilerServices;
using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Tests.Shared;
using MicroVm.VirtioFs.Events;
using MicroVm.VirtioFs.Protocol;
using Xunit;

namespace MicroVm.VirtioFs.Tests;

/// <summary>WATCH and EVENTS: what others do to inodes that the guest watches.</summary>
public sealed class HostEventTests : IDisposable
{
    private readonly TempTree _tree = new();
    private readonly FuseClient _fs;

    public HostEventTests() => _fs = new FuseClient(_tree.Share);

    [Fact]
    public void What_others_do_is_told_and_what_the_guest_does_is_not()
    {
        Watch(_fs.Root, HostWatches.Events);
        string file = Path.Combine(_tree.Share, "theirs");
        File.WriteAllText(file, "x");
        (fuse_entry_out own, ulong handle) = _fs.Create(_fs.Root, "own");
        _fs.Write(own.nodeid, handle, 0, [1, 2, 3]);
        _fs.Release(own.nodeid, handle);
        _fs.Rename(_fs.Root, "own", _fs.Root, "own2");
        _fs.Ok(FuseOpcode.FUSE_UNLINK, _fs.Root, FuseClient.Text("own2"));
        File.Move(file, file + "2");
        Directory.CreateDirectory(Path.Combine(_tree.Share, "d"));
        (uint Mask, string Name)[] told = Told(_fs.Root);
        Assert.Equal(
            [
                (Libc.IN_CREATE, "theirs"), (Libc.IN_MODIFY, "theirs"), (Libc.IN_CLOSE_WRITE, "theirs"), (Libc.IN_MOVED_FROM, "theirs"),
                (Libc.IN_MOVED_TO, "theirs2"), (Libc.IN_CREATE | Libc.IN_ISDIR, "d"),
            ],
            told);
    }

    [Fact]
    public void Only_what_is_watched_is_told_and_the_same_thing_once()
    {
        File.WriteAllText(Path.Combine(_tree.Share, "f"), "");
        ulong f = _fs.Lookup(_fs.Root, "f").nodeid;
        Watch(f, Libc.IN_MODIFY);
        for (int i = 0; i < 1000; i++)
        {
            File.AppendAllText(Path.Combine(_tree.Share, "f"), "x");
            File.SetUnixFileMode(Path.Combine(_tree.Share, "f"), i % 2 == 0 ? UnixFileMode.UserRead : UnixFileMode.UserRead | UnixFileMode.UserWrite);
        }

        Assert.Equal([(Libc.IN_MODIFY, "")], Told(f));
        Assert.Equal(1, _fs.Counter("fs.watched"));
        Watch(f, 0);
        File.AppendAllText(Path.Combine(_tree.Share, "f"), "x");
        Watch(_fs.Root, Libc.IN_CREATE);
        File.WriteAllText(Path.Combine(_tree.Share, "g"), "");
        Assert.Equal([(Libc.IN_CREATE, "g")], Told(_fs.Root));
    }

    [Fact]
    public void A_flood_is_bounded_and_counted()
    {
        Watch(_fs.Root, Libc.IN_CREATE);
        string name = new('n', 200);
        for (int i = 0; i < (PendingEvents.Size / 224) + 500; i++)
        {
            File.WriteAllText(Path.Combine(_tree.Share, name + i), "");
        }

        int events = 0;
        for (int answers = 0; answers < 20 && events < 200; answers++)
        {
            (uint Mask, string Name)[] told = Told(_fs.Root);
            Assert.InRange(told.Length, 1, 4096 / 224);
            Assert.Equal(Enumerable.Range(events, told.Length).Select(i => name + i), told.Select(t => t.Name));
            events += told.Length;
        }

        Assert.True(SpinWait.SpinUntil(() => _fs.Counter("fs.events_lost") > 0, TimeSpan.FromMinutes(1)), "nothing was lost");

        // After the events that were kept comes, once, that there were more.
        (uint Mask, string Name)[] last;
        do
        {
            last = Told(_fs.Root);
        }
        while (last[^1].Mask == Libc.IN_CREATE);
        Assert.Equal([(Libc.IN_Q_OVERFLOW, "")], last.Where(e => e.Mask != Libc.IN_CREATE));
    }

    [Fact]
    public void A_reset_forgets_what_was_watched()
    {
        Watch(_fs.Root, Libc.IN_CREATE);
        _fs.Guest.Device.Reset();
        Assert.Equal(0, _fs.Counter("fs.watched"));
        File.WriteAllText(Path.Combine(_tree.Share, "unseen"), "");
        _fs.Guest.Start();
        _fs.Init();
        ulong root = _fs.Lookup(1, "x").nodeid;
        Watch(root, Libc.IN_CREATE);
        File.WriteAllText(Path.Combine(_tree.Share, "seen"), "");
        Assert.Equal([(Libc.IN_CREATE, "seen")], Told(root));
    }

    [Fact]
    public void Bad_requests_are_refused()
    {
        Assert.Equal(Errno.ESTALE, _fs.Error(FuseOpcode.FUSE_WATCH, 999, FuseClient.Bytes(new fuse_watch_in { mask = Libc.IN_CREATE })));
        Assert.Equal(Errno.EINVAL, _fs.Error(FuseOpcode.FUSE_WATCH, _fs.Root, [1, 2]));
        Assert.Equal(Errno.EINVAL, _fs.Error(FuseOpcode.FUSE_EVENTS, _fs.Root, new byte[8]));
        Assert.Equal(Errno.EINVAL, _fs.Error(FuseOpcode.FUSE_EVENTS, 1, new byte[8], room: 100));
    }

    public void Dispose()
    {
        _fs.Dispose();
        _tree.Dispose();
    }

    [Fact]
    public void The_number_of_watched_inodes_is_bounded()
    {
        Errno error = Errno.OK;
        int watched = 0;
        for (; error == Errno.OK && watched <= HostWatches.Max; watched++)
        {
            File.WriteAllText(Path.Combine(_tree.Share, $"f{watched}"), "");
            error = _fs.Error(FuseOpcode.FUSE_WATCH, _fs.Lookup(_fs.Root, $"f{watched}").nodeid, FuseClient.Bytes(new fuse_watch_in { mask = Libc.IN_MODIFY }));
        }

        // The host's user may have fewer (fs.inotify.max_user_watches).
        Assert.Equal(Errno.ENOSPC, error);
        Assert.InRange(watched - 1, 1, HostWatches.Max);
        Assert.Equal(watched - 1, _fs.Counter("fs.watched"));
        Assert.Equal(Errno.OK, _fs.Error(FuseOpcode.FUSE_WATCH, _fs.Lookup(_fs.Root, "f0").nodeid, FuseClient.Bytes(new fuse_watch_in { mask = 0 })));
        Assert.Equal(watched - 2, _fs.Counter("fs.watched"));
    }

    private void Watch(ulong node, uint mask) => _fs.Ok(FuseOpcode.FUSE_WATCH, node, FuseClient.Bytes(new fuse_watch_in { mask = mask }));

    private (uint Mask, string Name)[] Told(ulong node)
    {
        byte[] answer = _fs.Ok(FuseOpcode.FUSE_EVENTS, 1, new byte[8], room: 4096);
        List<(uint Mask, string Name)> told = [];
        for (int at = 0; at < answer.Length;)
        {
            fuse_event e = FuseClient.Parse<fuse_event>(answer, at);
            Assert.Equal(node, e.nodeid);
            told.Add((e.mask, Encoding.UTF8.GetString(answer, at + Unsafe.SizeOf<fuse_event>(), (int)e.namelen)));
            at += (Unsafe.SizeOf<fuse_event>() + (int)e.namelen + 7) & ~7;
        }

        return [.. told];
    }
}
