using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Tests.Shared;
using MicroVm.VirtioFs.Protocol;
using Xunit;

namespace MicroVm.VirtioFs.Tests;

public sealed class FileOperationTests : IDisposable
{
    private readonly TempTree _tree = new();
    private readonly FuseClient _fs;

    public FileOperationTests() => _fs = new FuseClient(_tree.Share);

    public void Dispose()
    {
        _fs.Dispose();
        _tree.Dispose();
    }

    [Fact]
    public void Written_bytes_are_in_the_hosts_file_and_read_back()
    {
        (fuse_entry_out entry, ulong fh) = _fs.Create(_fs.Root, "f");
        Assert.Equal(5u, _fs.Write(entry.nodeid, fh, 0, "hello"u8.ToArray()));
        Assert.Equal(6u, _fs.Write(entry.nodeid, fh, 5, " world"u8.ToArray()));
        Assert.Equal("hello world", _tree.Read("f"));
        Assert.Equal("world"u8.ToArray(), _fs.Read(entry.nodeid, fh, 6, 4096));
        Assert.Empty(_fs.Read(entry.nodeid, fh, 11, 4096));
        _fs.Release(entry.nodeid, fh);
    }

    [Fact]
    public void A_megabyte_goes_both_ways_in_one_request_over_many_segments()
    {
        byte[] data = new byte[1 << 20];
        new Random(1).NextBytes(data);
        (fuse_entry_out entry, ulong fh) = _fs.Create(_fs.Root, "big");
        Assert.Equal((uint)data.Length, _fs.Write(entry.nodeid, fh, 0, data));
        Assert.Equal(data, File.ReadAllBytes(_tree.At("big")));

        byte[] args = FuseClient.ReadArgs(fh, 3, (1 << 20) - 3);
        fuse_in_header header = new() { len = (uint)(40 + args.Length), opcode = (uint)FuseOpcode.FUSE_READ, nodeid = entry.nodeid, unique = 7 };
        int[] segments = [16, .. Enumerable.Repeat(4096, 255), 4093];
        (uint written, byte[] reply) = _fs.Guest.Send(FsGuest.Requests, [FuseClient.Bytes(header), args], segments);
        Assert.Equal((uint)(16 + data.Length - 3), written);
        Assert.True(data.AsSpan(3).SequenceEqual(reply.AsSpan(16)));
    }

    [Fact]
    public void An_answers_header_and_a_requests_header_may_be_split_anywhere()
    {
        _tree.Write("f", "0123456789");
        ulong node = _fs.Walk("f");
        ulong fh = _fs.Open(node, Libc.O_RDONLY);
        byte[] args = FuseClient.ReadArgs(fh, 2, 6);
        fuse_in_header header = new() { len = (uint)(40 + args.Length), opcode = (uint)FuseOpcode.FUSE_READ, nodeid = node, unique = 7 };
        byte[] all = FuseClient.Join(FuseClient.Bytes(header), args);
        (uint written, byte[] reply) = _fs.Guest.Send(FsGuest.Requests, [.. all.Chunk(7)], [5, 12, 1, 1, 1, 2]);
        Assert.Equal(22u, written);
        Assert.Equal("234567"u8.ToArray(), reply[16..22]);
    }

    [Fact]
    public void Append_handles_append_whatever_the_offset()
    {
        _tree.Write("log", "one\n");
        ulong node = _fs.Walk("log");
        ulong fh = _fs.Open(node, Libc.O_WRONLY | Libc.O_APPEND);
        _fs.Write(node, fh, 0, "two\n"u8.ToArray());
        Assert.Equal("one\ntwo\n", _tree.Read("log"));
    }

    [Fact]
    public void Mapped_pages_go_to_their_place_through_an_append_handle()
    {
        _tree.Write("log", "abcdef");
        ulong node = _fs.Walk("log");
        ulong fh = _fs.Open(node, Libc.O_RDWR | Libc.O_APPEND);
        _fs.Write(node, fh, 1, "XY"u8.ToArray(), Fuse.FUSE_WRITE_CACHE);
        Assert.Equal("aXYdef", _tree.Read("log"));
    }

    [Fact]
    public void Open_truncates()
    {
        _tree.Write("f", "content");
        _fs.Open(_fs.Walk("f"), Libc.O_WRONLY | Libc.O_TRUNC);
        Assert.Equal("", _tree.Read("f"));
    }

    [Fact]
    public void Create_opens_an_existing_file_and_truncates_it_only_when_asked()
    {
        _tree.Write("f", "content");
        (fuse_entry_out entry, ulong fh) = _fs.Create(_fs.Root, "f");
        Assert.Equal("content"u8.ToArray(), _fs.Read(entry.nodeid, fh, 0, 100));
        _fs.Create(_fs.Root, "f", Libc.O_RDWR | Libc.O_TRUNC);
        Assert.Equal("", _tree.Read("f"));
        Assert.Equal(Errno.EEXIST, _fs.Error(FuseOpcode.FUSE_CREATE, _fs.Root, _fs.CreateArgs("f", Libc.O_RDWR | Libc.O_EXCL, 0x1A4)));
    }

    [Fact]
    public void Create_does_not_follow_a_link_that_has_the_name()
    {
        File.CreateSymbolicLink(_tree.At("link"), "../outside");
        Assert.Equal(Errno.ELOOP, _fs.Error(FuseOpcode.FUSE_CREATE, _fs.Root, _fs.CreateArgs("link", Libc.O_RDWR, 0x1A4)));
        Assert.False(File.Exists(Path.Combine(_tree.Base, "outside")));
    }

    [Fact]
    public void An_unlinked_file_stays_readable_and_writable_while_open()
    {
        (fuse_entry_out entry, ulong fh) = _fs.Create(_fs.Root, "f");
        _fs.Write(entry.nodeid, fh, 0, "still"u8.ToArray());
        _fs.Ok(FuseOpcode.FUSE_UNLINK, _fs.Root, FuseClient.Text("f"));
        Assert.False(File.Exists(_tree.At("f")));
        _fs.Write(entry.nodeid, fh, 5, " here"u8.ToArray());
        Assert.Equal("still here"u8.ToArray(), _fs.Read(entry.nodeid, fh, 0, 100));
        Assert.Equal((10ul, 0u), (_fs.GetAttr(entry.nodeid).size, _fs.GetAttr(entry.nodeid).nlink));
        _fs.SetAttr(entry.nodeid, new fuse_setattr_in { valid = Fuse.FATTR_SIZE, size = 3 });
        Assert.Equal(3ul, _fs.GetAttr(entry.nodeid).size);
    }

    [Fact]
    public void A_reopened_inode_is_the_same_file_after_a_rename()
    {
        _tree.Write("a", "A");
        ulong node = _fs.Walk("a");
        File.Move(_tree.At("a"), _tree.At("b"));
        _tree.Write("a", "other");

        // Its name leads to the other one; who asks all the same has not come by the name.
        Assert.Equal(Errno.ESTALE, _fs.OpenError(node, Libc.O_RDONLY));
        ulong fh = _fs.Open(node, Libc.O_RDONLY);
        Assert.Equal("A"u8.ToArray(), _fs.Read(node, fh, 0, 10));
    }

    [Fact]
    public void An_unnamed_file_gets_a_name_by_link()
    {
        byte[] args = _fs.CreateArgs("ignored", Libc.O_RDWR, 0x180);
        byte[] reply = _fs.Ok(FuseOpcode.FUSE_TMPFILE, _fs.Root, args);
        ulong node = FuseClient.Parse<fuse_entry_out>(reply).nodeid;
        ulong fh = FuseClient.Parse<fuse_open_out>(reply, 128).fh;
        _fs.Write(node, fh, 0, "tmp"u8.ToArray());
        Assert.Empty(Directory.GetFileSystemEntries(_tree.Share));
        _fs.Ok(FuseOpcode.FUSE_LINK, _fs.Root, FuseClient.LinkArgs(node, "named"));
        Assert.Equal("tmp", _tree.Read("named"));
    }

    [Fact]
    public void Holes_are_found_made_and_kept()
    {
        (fuse_entry_out entry, ulong fh) = _fs.Create(_fs.Root, "sparse");
        _fs.Write(entry.nodeid, fh, 1 << 20, new byte[4096]);
        Assert.Equal(1ul << 20, Seek(entry.nodeid, fh, 0, Libc.SEEK_DATA));
        Assert.Equal(0ul, Seek(entry.nodeid, fh, 0, Libc.SEEK_HOLE));

        Allocate(entry.nodeid, fh, 0, 64 << 10, 0);
        Assert.True(_fs.GetAttr(entry.nodeid).blocks >= 128);
        Allocate(entry.nodeid, fh, 0, 2 << 20, Libc.FALLOC_FL_KEEP_SIZE);
        Assert.Equal((1ul << 20) + 4096, _fs.GetAttr(entry.nodeid).size);

        _fs.Write(entry.nodeid, fh, 0, [.. Enumerable.Repeat((byte)7, 8192)]);
        Allocate(entry.nodeid, fh, 4096, 4096, Libc.FALLOC_FL_PUNCH_HOLE | Libc.FALLOC_FL_KEEP_SIZE);
        byte[] data = _fs.Read(entry.nodeid, fh, 0, 8192);
        Assert.All(data[..4096], b => Assert.Equal(7, b));
        Assert.All(data[4096..], b => Assert.Equal(0, b));
        Allocate(entry.nodeid, fh, 0, 4096, Libc.FALLOC_FL_ZERO_RANGE);
        Assert.Equal(0, _fs.Read(entry.nodeid, fh, 0, 1)[0]);
        Assert.Equal(Errno.EOPNOTSUPP, _fs.Error(FuseOpcode.FUSE_FALLOCATE, entry.nodeid, FuseClient.Bytes(
            new fuse_fallocate_in { fh = fh, offset = 0, length = 4096, mode = 0x40 })));
        Assert.Equal(Errno.ENXIO, _fs.Error(FuseOpcode.FUSE_LSEEK, entry.nodeid, FuseClient.Bytes(
            new fuse_lseek_in { fh = fh, offset = 1ul << 30, whence = (uint)Libc.SEEK_DATA })));
    }

    [Fact]
    public void Ranges_are_copied_between_files()
    {
        _tree.Write("from", "0123456789");
        ulong from = _fs.Walk("from");
        ulong fromHandle = _fs.Open(from, Libc.O_RDONLY);
        (fuse_entry_out to, ulong toHandle) = _fs.Create(_fs.Root, "to");
        fuse_copy_file_range_in copy = new() { fh_in = fromHandle, off_in = 2, nodeid_out = to.nodeid, fh_out = toHandle, off_out = 1, len = 5 };
        byte[] reply = _fs.Ok(FuseOpcode.FUSE_COPY_FILE_RANGE, from, FuseClient.Bytes(copy));
        Assert.Equal(5u, FuseClient.Parse<fuse_write_out>(reply).size);
        Assert.Equal("\023456", _tree.Read("to"));
    }

    [Fact]
    public void Sync_operations_succeed()
    {
        (fuse_entry_out entry, ulong fh) = _fs.Create(_fs.Root, "f");
        _fs.Ok(FuseOpcode.FUSE_FSYNC, entry.nodeid, FuseClient.Bytes(new fuse_fsync_in { fh = fh }), 0);
        _fs.Ok(FuseOpcode.FUSE_FSYNC, entry.nodeid, FuseClient.Bytes(new fuse_fsync_in { fh = fh, fsync_flags = 1 }), 0);
        _fs.Ok(FuseOpcode.FUSE_FLUSH, entry.nodeid, FuseClient.Bytes(new fuse_flush_in { fh = fh }), 0);
        ulong dir = _fs.OpenDirectory(_fs.Root);
        _fs.Ok(FuseOpcode.FUSE_FSYNCDIR, _fs.Root, FuseClient.Bytes(new fuse_fsync_in { fh = dir }), 0);
    }

    [Fact]
    public void Poll_access_and_unknown_operations_are_left_to_the_kernel()
    {
        foreach (FuseOpcode opcode in (FuseOpcode[])[
            FuseOpcode.FUSE_ACCESS, FuseOpcode.FUSE_POLL, FuseOpcode.FUSE_BMAP, FuseOpcode.FUSE_SETUPMAPPING, (FuseOpcode)1000])
        {
            Assert.Equal(Errno.ENOSYS, _fs.Error(opcode, _fs.Root, new byte[64]));
        }

        Assert.Equal(1, _fs.Counter("fs.unsupported.poll"));
        Assert.Equal(1, _fs.Counter("fs.unsupported.other"));
    }

    private ulong Seek(ulong node, ulong fh, ulong offset, int whence) => FuseClient.Parse<fuse_lseek_out>(_fs.Ok(
        FuseOpcode.FUSE_LSEEK, node, FuseClient.Bytes(new fuse_lseek_in { fh = fh, offset = offset, whence = (uint)whence }))).offset;

    private void Allocate(ulong node, ulong fh, ulong offset, ulong length, int mode) => _fs.Ok(
        FuseOpcode.FUSE_FALLOCATE, node, FuseClient.Bytes(new fuse_fallocate_in { fh = fh, offset = offset, length = length, mode = (uint)mode }), 0);
}
