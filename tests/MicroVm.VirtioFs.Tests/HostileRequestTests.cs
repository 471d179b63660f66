using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Tests.Shared;
using MicroVm.Virtio;
using MicroVm.VirtioFs.Protocol;
using Xunit;

namespace MicroVm.VirtioFs.Tests;

public sealed class HostileRequestTests : IDisposable
{
    private readonly TempTree _tree = new();
    private readonly FuseClient _fs;

    public HostileRequestTests()
    {
        File.WriteAllText(Path.Combine(_tree.Base, "secret"), "secret");
        Directory.CreateDirectory(_tree.At("d"));
        _fs = new FuseClient(_tree.Share);
    }

    public void Dispose()
    {
        Assert.Equal("secret", File.ReadAllText(Path.Combine(_tree.Base, "secret")));
        Assert.Equal(2, Directory.GetFileSystemEntries(_tree.Base).Length);
        _fs.Dispose();
        _tree.Dispose();
    }

    [Theory]
    [InlineData("../secret", Errno.EINVAL)]
    [InlineData("d/../../secret", Errno.EINVAL)]
    [InlineData("/etc/passwd", Errno.EINVAL)]
    [InlineData("/", Errno.EINVAL)]
    [InlineData("", Errno.EINVAL)]
    [InlineData("d/", Errno.EINVAL)]
    [InlineData("a\0b", Errno.EINVAL)]
    public void Names_that_are_no_single_component_are_refused_everywhere(string name, Errno expected)
    {
        byte[] text = FuseClient.Text(name);
        Assert.Equal(expected, _fs.Error(FuseOpcode.FUSE_LOOKUP, _fs.Root, text));
        Assert.Equal(expected, _fs.Error(FuseOpcode.FUSE_LOOKUP, 1, text));
        AssertRefusedForChanges(name, expected);
    }

    [Theory]
    [InlineData(".")]
    [InlineData("..")]
    public void Dots_name_nothing_that_can_be_made_or_removed(string name) => AssertRefusedForChanges(name, Errno.EINVAL);

    [Fact]
    public void A_reset_waits_for_one_request_and_not_for_all_that_are_queued()
    {
        const int Queued = 256;
        File.WriteAllBytes(_tree.At("from"), new byte[64 << 20]);
        File.WriteAllBytes(_tree.At("to"), []);
        using FuseClient fs = new(_tree.Share);
        ulong from = fs.Walk("from");
        ulong to = fs.Walk("to");
        fuse_copy_file_range_in copy = new() { fh_in = fs.Open(from, Libc.O_RDONLY), nodeid_out = to, fh_out = fs.Open(to, Libc.O_RDWR), len = 1ul << 40 };
        Assert.Equal(8u << 20, FuseClient.Parse<fuse_write_out>(fs.Ok(FuseOpcode.FUSE_COPY_FILE_RANGE, from, FuseClient.Bytes(copy))).size);
        fuse_in_header header = new() { len = 40 + 56, opcode = (uint)FuseOpcode.FUSE_COPY_FILE_RANGE, unique = 1, nodeid = from };
        FsGuest guest = fs.Guest;
        Assert.True(guest.Memory.TryWrite(0x200000, FuseClient.Join(FuseClient.Bytes(header), FuseClient.Bytes(copy))));
        guest.PutDescriptor(FsGuest.Requests, 10, 0x200000, header.len, Descriptor.FlagNext, 11);
        guest.PutDescriptor(FsGuest.Requests, 11, 0x300000, 4096, Descriptor.FlagWrite, 0);
        Assert.True(guest.Memory.TryRead(FsGuest.UsedRing(FsGuest.Requests) + 2, out ushort before));
        for (int i = 0; i < Queued; i++)
        {
            guest.Offer(FsGuest.Requests, 10);
        }

        guest.Device.Reset();
        Assert.True(guest.Memory.TryRead(FsGuest.UsedRing(FsGuest.Requests) + 2, out ushort after));
        Assert.InRange((ushort)(after - before), 0, Queued - 1);
    }

    [Fact]
    public void What_is_longer_than_the_largest_write_is_refused()
    {
        using FuseClient fs = new(_tree.Share);
        Assert.Equal(Errno.EINVAL, fs.Error(FuseOpcode.FUSE_LOOKUP, fs.Root, new byte[(1 << 20) + 4096]));
        Assert.Equal(Errno.EINVAL, fs.Error(FuseOpcode.FUSE_GETATTR, fs.Root, new byte[16], (1 << 20) + 4096));
        Assert.Equal(2, fs.Counter("fs.malformed"));
        fs.Ok(FuseOpcode.FUSE_GETATTR, fs.Root, new byte[16], (1 << 20) + 4080);
    }

    [Fact]
    public void Names_of_256_bytes_are_too_long_and_unended_ones_malformed()
    {
        Assert.Equal(Errno.ENOENT, _fs.LookupError(_fs.Root, new string('n', 255)));
        Assert.Equal(Errno.ENAMETOOLONG, _fs.LookupError(_fs.Root, new string('n', 256)));
        Assert.Equal(Errno.ENAMETOOLONG, _fs.LookupError(_fs.Root, new string('n', 100_000)));
        Assert.Equal(Errno.EINVAL, _fs.Error(FuseOpcode.FUSE_LOOKUP, _fs.Root, "d"u8.ToArray()));
        Assert.Equal(Errno.EINVAL, _fs.Error(FuseOpcode.FUSE_LOOKUP, _fs.Root, []));
        Assert.Equal(Errno.EINVAL, _fs.Error(FuseOpcode.FUSE_RENAME2, _fs.Root, FuseClient.Join(new byte[16], FuseClient.Text("d"), "e"u8.ToArray())));
        Assert.Equal(Errno.EINVAL, _fs.Error(FuseOpcode.FUSE_MKDIR, _fs.Root, new byte[7]));
    }

    [Fact]
    public void Dot_dot_never_leaves_an_export()
    {
        ulong d = _fs.Walk("d");
        Assert.Equal(_fs.Root, _fs.Lookup(_fs.Root, "..").nodeid);
        Assert.Equal(_fs.Root, _fs.Lookup(_fs.Root, ".").nodeid);
        Assert.Equal(d, _fs.Lookup(d, ".").nodeid);
        Assert.Equal(Errno.EINVAL, _fs.LookupError(d, ".."));
        Assert.Equal(1ul, _fs.Lookup(1, "..").nodeid);
    }

    [Fact]
    public void Links_out_of_the_tree_are_links_and_nothing_behind_them_is_reached()
    {
        Directory.CreateSymbolicLink(_tree.At("up"), "..");
        File.CreateSymbolicLink(_tree.At("abs"), Path.Combine(_tree.Base, "secret"));
        File.CreateSymbolicLink(_tree.At("magic"), "/proc/self/root");
        foreach (string name in new[] { "up", "abs", "magic" })
        {
            fuse_entry_out link = _fs.Lookup(_fs.Root, name);
            Assert.Equal(Libc.S_IFLNK, link.attr.mode & Libc.S_IFMT);
            Assert.Equal(Errno.ENOTDIR, _fs.LookupError(link.nodeid, "secret"));
            Assert.Equal(Errno.ELOOP, _fs.OpenError(link.nodeid, Libc.O_RDWR));
            Assert.Equal(Errno.ENOTDIR, _fs.Error(FuseOpcode.FUSE_OPENDIR, link.nodeid, new byte[8]));
            Assert.Equal(Errno.ENOTDIR, _fs.Error(FuseOpcode.FUSE_UNLINK, link.nodeid, FuseClient.Text("secret")));
            Assert.Equal(Errno.ENOTDIR, _fs.Error(FuseOpcode.FUSE_CREATE, link.nodeid, _fs.CreateArgs("n", Libc.O_RDWR, 0x1A4)));
            Assert.NotEqual(Errno.OK, _fs.Error(FuseOpcode.FUSE_SETATTR, link.nodeid, FuseClient.Bytes(new fuse_setattr_in { valid = Fuse.FATTR_SIZE })));
            _fs.Error(FuseOpcode.FUSE_SETATTR, link.nodeid, FuseClient.Bytes(new fuse_setattr_in { valid = Fuse.FATTR_MODE, mode = 0 }));
        }

        Assert.NotEqual(UnixFileMode.None, File.GetUnixFileMode(Path.Combine(_tree.Base, "secret")));
    }

    [Fact]
    public void Magic_links_in_an_exported_procfs_are_not_followed()
    {
        using FuseClient fs = new(FuseClient.Export("x", "/proc/self/"));
        ulong proc = fs.Lookup(1, "x").nodeid;
        foreach (string name in new[] { "root", "cwd", "exe" })
        {
            fuse_entry_out link = fs.Lookup(proc, name);
            Assert.Equal(Libc.S_IFLNK, link.attr.mode & Libc.S_IFMT);
            Assert.Equal(Errno.ELOOP, fs.OpenError(link.nodeid, Libc.O_RDONLY));
            Assert.Equal(Errno.ENOTDIR, fs.LookupError(link.nodeid, "etc"));
        }
    }

    [SkippableFact]
    public void Devices_are_not_opened()
    {
        using FuseClient fs = new(FuseClient.Export("x", "/dev"));
        ulong node = fs.Lookup(fs.Lookup(1, "x").nodeid, "null").nodeid;
        Assert.Equal(Errno.ENXIO, fs.OpenError(node, Libc.O_RDWR));
        Assert.Equal(Errno.EINVAL, fs.Error(FuseOpcode.FUSE_SETATTR, node, FuseClient.Bytes(new fuse_setattr_in { valid = Fuse.FATTR_SIZE })));
    }

    [Fact]
    public void Forged_ids_and_handles_are_found_out()
    {
        (fuse_entry_out f, ulong fh) = _fs.Create(_fs.Root, "f");
        (fuse_entry_out g, ulong gh) = _fs.Create(_fs.Root, "g");
        ulong dh = _fs.OpenDirectory(_fs.Root);
        foreach (ulong node in new ulong[] { 0ul, 999, f.nodeid + (1ul << 32), ulong.MaxValue, 1ul << 63, uint.MaxValue })
        {
            foreach (FuseOpcode opcode in Enum.GetValues<FuseOpcode>())
            {
                if (opcode is not (FuseOpcode.FUSE_INIT or FuseOpcode.FUSE_DESTROY or FuseOpcode.FUSE_FORGET or FuseOpcode.FUSE_BATCH_FORGET or FuseOpcode.FUSE_INTERRUPT))
                {
                    Assert.NotEqual(Errno.OK, _fs.Error(opcode, node, FuseClient.Join(new byte[80], FuseClient.Text("n"))));
                }
            }
        }

        foreach (ulong forged in new ulong[] { 0ul, gh, dh, fh + (1ul << 32), fh + 100, ulong.MaxValue })
        {
            Assert.Equal(Errno.EBADF, _fs.Error(FuseOpcode.FUSE_READ, f.nodeid, FuseClient.ReadArgs(forged, 0, 10)));
            Assert.Equal(Errno.EBADF, _fs.Error(FuseOpcode.FUSE_WRITE, f.nodeid, FuseClient.WriteArgs(forged, 0, [1])));
            Assert.Equal(Errno.EBADF, _fs.Error(FuseOpcode.FUSE_RELEASE, f.nodeid, FuseClient.Bytes(new fuse_release_in { fh = forged })));
            Assert.Equal(Errno.EBADF, _fs.Error(FuseOpcode.FUSE_FSYNC, f.nodeid, FuseClient.Bytes(new fuse_fsync_in { fh = forged })));
            Assert.Equal(Errno.EBADF, _fs.Error(FuseOpcode.FUSE_FLUSH, f.nodeid, FuseClient.Bytes(new fuse_flush_in { fh = forged })));
            Assert.Equal(Errno.EBADF, _fs.Error(FuseOpcode.FUSE_LSEEK, f.nodeid, FuseClient.Bytes(new fuse_lseek_in { fh = forged, whence = 3 })));
        }

        Assert.Equal(Errno.EBADF, _fs.Error(FuseOpcode.FUSE_READDIR, _fs.Root, FuseClient.ReadArgs(fh, 0, 100)));
        Assert.Equal(Errno.EBADF, _fs.Error(FuseOpcode.FUSE_RELEASEDIR, f.nodeid, FuseClient.Bytes(new fuse_release_in { fh = fh })));
        Assert.Equal(Errno.EBADF, _fs.Error(FuseOpcode.FUSE_RELEASE, _fs.Root, FuseClient.Bytes(new fuse_release_in { fh = dh })));
        _fs.Release(f.nodeid, fh);
        Assert.Equal(Errno.EBADF, _fs.Error(FuseOpcode.FUSE_RELEASE, f.nodeid, FuseClient.Bytes(new fuse_release_in { fh = fh })));
        fuse_copy_file_range_in copy = new() { fh_in = gh, fh_out = gh, nodeid_out = f.nodeid, len = 1 };
        Assert.Equal(Errno.EBADF, _fs.Error(FuseOpcode.FUSE_COPY_FILE_RANGE, g.nodeid, FuseClient.Bytes(copy)));
    }

    [Fact]
    public void Forget_never_goes_below_zero_and_a_node_in_use_survives_it()
    {
        (fuse_entry_out f, ulong fh) = _fs.Create(_fs.Root, "f");
        _fs.Forget(f.nodeid, ulong.MaxValue);
        _fs.Forget(f.nodeid, 5);
        _fs.Forget(1, ulong.MaxValue);
        _fs.Forget(0, 1);
        Assert.Equal(Errno.ESTALE, _fs.Error(FuseOpcode.FUSE_GETATTR, f.nodeid, new byte[16]));
        Assert.Equal(1u, _fs.Write(f.nodeid, fh, 0, [1]));
        fuse_entry_out again = _fs.Lookup(_fs.Root, "f");
        _fs.Forget(f.nodeid, 1, FsGuest.Requests);
        Assert.Equal(1ul, _fs.GetAttr(again.nodeid).size);
        Assert.Equal(Libc.S_IFDIR | 0x16Du, _fs.GetAttr(1).mode);
    }

    [Fact]
    public void Silly_sizes_and_offsets_get_an_error_and_move_nothing()
    {
        (fuse_entry_out f, ulong fh) = _fs.Create(_fs.Root, "f");
        _fs.Write(f.nodeid, fh, 0, [1, 2, 3]);
        foreach (ulong offset in new ulong[] { ulong.MaxValue, 1ul << 63, long.MaxValue, long.MaxValue - 2 })
        {
            Assert.NotEqual(Errno.OK, _fs.Error(FuseOpcode.FUSE_READ, f.nodeid, FuseClient.ReadArgs(fh, offset, 100)));
            Assert.NotEqual(Errno.OK, _fs.Error(FuseOpcode.FUSE_WRITE, f.nodeid, FuseClient.WriteArgs(fh, offset, new byte[10])));
            Assert.NotEqual(Errno.OK, _fs.Error(FuseOpcode.FUSE_FALLOCATE, f.nodeid, FuseClient.Bytes(
                new fuse_fallocate_in { fh = fh, offset = offset, length = ulong.MaxValue })));
            Assert.NotEqual(Errno.OK, _fs.Error(FuseOpcode.FUSE_LSEEK, f.nodeid, FuseClient.Bytes(
                new fuse_lseek_in { fh = fh, offset = offset, whence = 3 })));
            fuse_copy_file_range_in copy = new() { fh_in = fh, fh_out = fh, nodeid_out = f.nodeid, off_in = offset, off_out = 0, len = ulong.MaxValue };
            Assert.NotEqual(Errno.OK, _fs.Error(FuseOpcode.FUSE_COPY_FILE_RANGE, f.nodeid, FuseClient.Bytes(copy)));
        }

        Assert.Equal(Errno.EINVAL, _fs.Error(FuseOpcode.FUSE_READ, f.nodeid, FuseClient.ReadArgs(fh, 0, uint.MaxValue)));
        Assert.Equal(Errno.EINVAL, _fs.Error(FuseOpcode.FUSE_READ, f.nodeid, FuseClient.ReadArgs(fh, 0, 101), 100));
        fuse_write_in lie = new() { fh = fh, size = 1000 };
        Assert.Equal(Errno.EINVAL, _fs.Error(FuseOpcode.FUSE_WRITE, f.nodeid, FuseClient.Join(FuseClient.Bytes(lie), new byte[999])));
        lie.size = uint.MaxValue;
        Assert.Equal(Errno.EINVAL, _fs.Error(FuseOpcode.FUSE_WRITE, f.nodeid, FuseClient.Join(FuseClient.Bytes(lie), new byte[999])));
        ulong dh = _fs.OpenDirectory(_fs.Root);
        foreach (ulong offset in new ulong[] { ulong.MaxValue, 1ul << 63, long.MaxValue, 12345ul })
        {
            _ = _fs.Call(FuseOpcode.FUSE_READDIR, _fs.Root, FuseClient.ReadArgs(dh, offset, 4000));
            _ = _fs.Call(FuseOpcode.FUSE_READDIRPLUS, _fs.Root, FuseClient.ReadArgs(dh, offset, 4000));
            ulong rh = _fs.OpenDirectory(1);
            Assert.Empty(_fs.Ok(FuseOpcode.FUSE_READDIR, 1, FuseClient.ReadArgs(rh, offset, 4000)));
        }

        Assert.Equal(Errno.EINVAL, _fs.Error(FuseOpcode.FUSE_READDIR, _fs.Root, FuseClient.ReadArgs(dh, 0, 10)));
        Assert.Equal(Errno.E2BIG, _fs.Error(FuseOpcode.FUSE_SETXATTR, f.nodeid, FuseClient.SetXattrArgs("user.a", new byte[70_000])));
        byte[] xattr = FuseClient.SetXattrArgs("user.a", [1, 2, 3]);
        xattr[3] = 0x80;
        Assert.NotEqual(Errno.OK, _fs.Error(FuseOpcode.FUSE_SETXATTR, f.nodeid, xattr));
        xattr[3] = 0;
        xattr[0] = 200;
        Assert.Equal(Errno.EINVAL, _fs.Error(FuseOpcode.FUSE_SETXATTR, f.nodeid, xattr));
        Assert.Equal(3, new FileInfo(_tree.At("f")).Length);
    }

    [Fact]
    public void Malformed_requests_are_answered_where_an_answer_fits_and_counted()
    {
        byte[] header = FuseClient.Bytes(new fuse_in_header { len = 40, opcode = (uint)FuseOpcode.FUSE_GETATTR, nodeid = _fs.Root, unique = 77 });
        (uint written, byte[] reply) = _fs.Guest.Send(FsGuest.Requests, [header[..39]], [200]);
        Assert.Equal((16u, -22), (written, FuseClient.Parse<fuse_out_header>(reply).error));
        (written, reply) = _fs.Guest.Send(FsGuest.Requests, [header, new byte[8]], [200]);
        Assert.Equal((16u, -22, 77ul), (written, FuseClient.Parse<fuse_out_header>(reply).error, FuseClient.Parse<fuse_out_header>(reply).unique));
        Assert.Equal(0u, _fs.Guest.Send(FsGuest.Requests, [header], [15]).Written);
        Assert.Equal(0u, _fs.Guest.Send(FsGuest.Requests, [header], []).Written);
        Assert.Equal(0u, _fs.Guest.Send(FsGuest.Requests, [], [3]).Written);
        (written, reply) = _fs.Guest.Send(FsGuest.Requests, [header], [16 + 103]);
        Assert.Equal((16u, -22), (written, FuseClient.Parse<fuse_out_header>(reply).error));
        Assert.Equal(6, _fs.Counter("fs.malformed"));

        // Nothing is made when there is no room to tell of it.
        Assert.Equal(Errno.EINVAL, _fs.Error(FuseOpcode.FUSE_CREATE, _fs.Root, _fs.CreateArgs("n", Libc.O_RDWR, 0x1A4), 100));
        Assert.Equal(Errno.EINVAL, _fs.Error(FuseOpcode.FUSE_MKDIR, _fs.Root, FuseClient.Join(new byte[8], FuseClient.Text("n")), 100));
        Assert.Equal(["d"], Directory.GetFileSystemEntries(_tree.Share).Select(Path.GetFileName));
        Assert.Equal(1, _fs.Counter("fs.inodes"));
    }

    [Fact]
    public void The_high_priority_queue_serves_while_requests_are_served_and_accepts_interrupts()
    {
        byte[] interrupt = FuseClient.Bytes(new fuse_in_header { len = 48, opcode = (uint)FuseOpcode.FUSE_INTERRUPT, unique = 5 });
        Assert.Equal(0u, _fs.Guest.Send(FsGuest.HighPriority, [interrupt, new byte[8]], [16]).Written);
        Assert.Empty(_fs.Guest.Failures);
    }

    [Fact]
    public void A_broken_ring_stops_the_device_and_nothing_else()
    {
        _fs.Guest.PutDescriptor(FsGuest.Requests, 0, 1ul << 60, 100, 0, 0);
        _fs.Guest.Offer(FsGuest.Requests, 0);
        SpinWait.SpinUntil(() => !_fs.Guest.Failures.IsEmpty, 30_000);
        Assert.Contains("outside guest memory", Assert.Single(_fs.Guest.Failures), StringComparison.Ordinal);
        _fs.Guest.Failures.Clear();
        _fs.Forget(_fs.Root, 1);
        _fs.Guest.Device.Reset();
    }

    [Fact]
    public void A_directory_that_turns_into_a_link_between_requests_leads_nowhere_else()
    {
        string d = _tree.At("swap");
        string aside = _tree.At("aside");
        Directory.CreateDirectory(Path.Combine(_tree.Base, "share", "swap"));
        string outside = Directory.CreateTempSubdirectory("microvm-fs-outside-").FullName;
        File.WriteAllText(Path.Combine(outside, "target"), "outside");
        File.WriteAllText(Path.Combine(d, "target"), "inside");
        using CancellationTokenSource stop = new();
        Thread swapper = new(() =>
        {
            while (!stop.IsCancellationRequested)
            {
                Directory.Move(d, aside);
                Directory.CreateSymbolicLink(d, outside);
                File.Delete(d);
                Directory.Move(aside, d);
            }
        });
        swapper.Start();
        int reached = 0;

        // On a busy machine the swapper may stand still with the directory aside for all of the first rounds.
        for (int i = 0; i < 3000 || (reached == 0 && i < 1_000_000); i++)
        {
            byte[] found = _fs.Call(FuseOpcode.FUSE_LOOKUP, _fs.Root, FuseClient.Text("swap"));
            if (_fs.LastError != Errno.OK)
            {
                continue;
            }

            ulong node = FuseClient.Parse<fuse_entry_out>(found).nodeid;
            found = _fs.Call(FuseOpcode.FUSE_LOOKUP, node, FuseClient.Text("target"));
            if (_fs.LastError == Errno.OK)
            {
                ulong target = FuseClient.Parse<fuse_entry_out>(found).nodeid;
                ulong fh = _fs.Open(target, Libc.O_RDWR);
                Assert.Equal("inside"u8.ToArray(), _fs.Read(target, fh, 0, 100));
                _fs.Release(target, fh);
                reached++;
            }

            _ = _fs.Call(FuseOpcode.FUSE_CREATE, node, _fs.CreateArgs($"new{i % 10}", Libc.O_RDWR, 0x1A4));
        }

        stop.Cancel();
        swapper.Join();
        Assert.True(reached > 0);
        Assert.Equal(["target"], Directory.GetFileSystemEntries(outside).Select(Path.GetFileName));
        Assert.Equal("outside", File.ReadAllText(Path.Combine(outside, "target")));
        Directory.Delete(outside, recursive: true);
    }

    private void AssertRefusedForChanges(string name, Errno expected)
    {
        byte[] text = FuseClient.Text(name);
        byte[] ok = FuseClient.Text("ok");
        ulong d = _fs.Walk("d");
        (FuseOpcode Opcode, byte[] Args)[] all =
        [
            (FuseOpcode.FUSE_UNLINK, text),
            (FuseOpcode.FUSE_RMDIR, text),
            (FuseOpcode.FUSE_MKDIR, FuseClient.Join(new byte[8], text)),
            (FuseOpcode.FUSE_MKNOD, FuseClient.Join(FuseClient.Bytes(new fuse_mknod_in { mode = Libc.S_IFREG }), text)),
            (FuseOpcode.FUSE_SYMLINK, FuseClient.Join(text, ok)),
            (FuseOpcode.FUSE_CREATE, _fs.CreateArgs(name, Libc.O_RDWR, 0x1A4)),
            (FuseOpcode.FUSE_LINK, FuseClient.Join(FuseClient.Bytes(new fuse_link_in { oldnodeid = d }), text)),
            (FuseOpcode.FUSE_RENAME2, FuseClient.Join(FuseClient.Bytes(new fuse_rename2_in { newdir = _fs.Root }), text, ok)),
            (FuseOpcode.FUSE_RENAME2, FuseClient.Join(FuseClient.Bytes(new fuse_rename2_in { newdir = _fs.Root }), FuseClient.Text("d"), text)),
        ];
        foreach ((FuseOpcode opcode, byte[] args) in all)
        {
            // A NUL inside a name shifts the names behind it, which may make one too many.
            Errno error = _fs.Error(opcode, _fs.Root, args);
            Assert.True(error == expected || (name.Contains('\0') && opcode == FuseOpcode.FUSE_SYMLINK), $"{opcode} '{name}': {error}");
        }
    }
}
