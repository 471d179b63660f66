using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Tests.Shared;
using MicroVm.VirtioFs.Protocol;
using Xunit;

namespace MicroVm.VirtioFs.Tests;

public sealed class NameOperationTests : IDisposable
{
    private readonly TempTree _tree = new();
    private readonly FuseClient _fs;

    public NameOperationTests() => _fs = new FuseClient(_tree.Share);

    public void Dispose()
    {
        _fs.Dispose();
        _tree.Dispose();
    }

    [Fact]
    public void Hard_links_share_an_inode()
    {
        _tree.Write("a", "A");
        ulong a = _fs.Walk("a");
        fuse_entry_out b = FuseClient.Parse<fuse_entry_out>(_fs.Ok(FuseOpcode.FUSE_LINK, _fs.Root, FuseClient.LinkArgs(a, "b")));
        Assert.Equal(a, b.nodeid);
        Assert.Equal(2u, b.attr.nlink);
        Assert.Equal(a, _fs.Lookup(_fs.Root, "b").nodeid);
        _fs.Ok(FuseOpcode.FUSE_UNLINK, _fs.Root, FuseClient.Text("a"));
        Assert.Equal("A", _tree.Read("b"));
        Assert.Equal(Errno.EEXIST, _fs.Error(FuseOpcode.FUSE_LINK, _fs.Root, FuseClient.LinkArgs(a, "b")));
    }

    [Fact]
    public void A_symbolic_link_is_stored_as_it_is_and_can_be_hard_linked()
    {
        fuse_entry_out link = _fs.Symlink(_fs.Root, "l", "/etc/../../passwd");
        Assert.Equal(Libc.S_IFLNK, link.attr.mode & Libc.S_IFMT);
        Assert.Equal("/etc/../../passwd", new FileInfo(_tree.At("l")).LinkTarget);
        Assert.Equal("/etc/../../passwd", Encoding.UTF8.GetString(_fs.Ok(FuseOpcode.FUSE_READLINK, link.nodeid, [])));
        _fs.Ok(FuseOpcode.FUSE_LINK, _fs.Root, FuseClient.LinkArgs(link.nodeid, "m"));
        Assert.Equal("/etc/../../passwd", new FileInfo(_tree.At("m")).LinkTarget);
        Assert.Equal(Errno.EINVAL, _fs.Error(FuseOpcode.FUSE_READLINK, _fs.Root, []));
        Assert.Equal(Errno.ENOENT, _fs.Error(FuseOpcode.FUSE_SYMLINK, _fs.Root, FuseClient.Join(FuseClient.Text("n"), FuseClient.Text(""))));
    }

    [Fact]
    public void Directories_are_made_and_removed_when_empty()
    {
        ulong d = _fs.MakeDirectory(_fs.Root, "d").nodeid;
        _fs.Create(d, "f");
        Assert.Equal(Errno.EEXIST, _fs.Error(FuseOpcode.FUSE_MKDIR, _fs.Root, FuseClient.Join(FuseClient.Bytes(default(fuse_mkdir_in)), FuseClient.Text("d"))));
        Assert.Equal(Errno.EISDIR, _fs.Error(FuseOpcode.FUSE_UNLINK, _fs.Root, FuseClient.Text("d"), 0));
        Assert.Equal(Errno.ENOTEMPTY, _fs.Error(FuseOpcode.FUSE_RMDIR, _fs.Root, FuseClient.Text("d"), 0));
        Assert.Equal(Errno.ENOTDIR, _fs.Error(FuseOpcode.FUSE_RMDIR, d, FuseClient.Text("f"), 0));
        _fs.Ok(FuseOpcode.FUSE_UNLINK, d, FuseClient.Text("f"), 0);
        _fs.Ok(FuseOpcode.FUSE_RMDIR, _fs.Root, FuseClient.Text("d"), 0);
        Assert.False(Directory.Exists(_tree.At("d")));
        Assert.Equal(Errno.ENOENT, _fs.LookupError(d, "f"));
    }

    [Fact]
    public void Rename_moves_replaces_refuses_and_exchanges()
    {
        ulong d = _fs.MakeDirectory(_fs.Root, "d").nodeid;
        _tree.Write("a", "A");
        _tree.Write("b", "B");
        Assert.Equal(Errno.OK, _fs.Rename(_fs.Root, "a", d, "a2"));
        Assert.Equal("A", _tree.Read("d/a2"));
        Assert.Equal(Errno.EEXIST, _fs.Rename(_fs.Root, "b", d, "a2", Libc.RENAME_NOREPLACE));
        Assert.Equal(Errno.OK, _fs.Rename(_fs.Root, "b", d, "a2", Libc.RENAME_EXCHANGE));
        Assert.Equal(("A", "B"), (_tree.Read("b"), _tree.Read("d/a2")));
        Assert.Equal(Errno.OK, _fs.Rename(_fs.Root, "b", d, "a2"));
        Assert.Equal("A", _tree.Read("d/a2"));
        Assert.Equal(Errno.ENOENT, _fs.Rename(_fs.Root, "b", d, "a2"));
        Assert.Equal(Errno.EINVAL, _fs.Rename(_fs.Root, "d", d, "inside"));
        Assert.Equal(Errno.EINVAL, _fs.Rename(_fs.Root, "d", d, "x", 8));
        byte[] old = FuseClient.Join(FuseClient.Bytes(new fuse_rename_in { newdir = _fs.Root }), FuseClient.Text("a2"), FuseClient.Text("a3"));
        _fs.Ok(FuseOpcode.FUSE_RENAME, d, old, 0);
        Assert.Equal("A", _tree.Read("a3"));
    }

    [SkippableFact]
    public void Whiteouts_are_made_as_they_are_and_other_devices_as_marked_files()
    {
        Skip.IfNot(TempTree.IsRoot, "making device nodes needs root");
        const uint Char = Libc.S_IFCHR | 0x180;
        fuse_entry_out node = FuseClient.Parse<fuse_entry_out>(_fs.Ok(FuseOpcode.FUSE_MKNOD, _fs.Root, FuseClient.NodeArgs("w", Char)));
        Assert.Equal((Libc.S_IFCHR, 0u), (node.attr.mode & Libc.S_IFMT, node.attr.rdev));
        foreach ((string name, uint mode, uint device) in new[] { ("null", Libc.S_IFCHR | 0x1B6u, 0x103u), ("sda", Libc.S_IFBLK | 0x180u, 0u), ("big", Libc.S_IFBLK | 0x180u, 0xABC0_0000u | (0x123u << 8) | 0x45u) })
        {
            fuse_attr made = FuseClient.Parse<fuse_entry_out>(_fs.Ok(FuseOpcode.FUSE_MKNOD, _fs.Root, FuseClient.NodeArgs(name, mode, device))).attr;
            Assert.Equal((mode & ~0x12u, device, 0ul), (made.mode, made.rdev, made.size));
            fuse_entry_out again = _fs.Lookup(_fs.Root, name);
            Assert.Equal((made.mode, device), (again.attr.mode, again.attr.rdev));
            Assert.Equal(made.mode, _fs.GetAttr(again.nodeid).mode);
            fuse_attr changed = _fs.SetAttr(again.nodeid, new fuse_setattr_in { valid = Fuse.FATTR_MODE, mode = (mode & Libc.S_IFMT) | 0x124 });
            Assert.Equal(((mode & Libc.S_IFMT) | 0x124, device), (changed.mode, changed.rdev));
            Assert.Equal(Errno.ENXIO, _fs.OpenError(again.nodeid, Libc.O_RDWR));
            Assert.Equal(Errno.OK, _fs.Rename(_fs.Root, name, _fs.Root, name + "2"));
            Assert.Equal(changed.mode, _fs.Lookup(_fs.Root, name + "2").attr.mode);
            Assert.Equal((mode & Libc.S_IFMT) >> 12, _fs.List(_fs.Root, plus: true).Single(e => e.Name == name + "2").Dirent.type);
            Assert.Equal((mode & Libc.S_IFMT) >> 12, _fs.List(_fs.Root, plus: false).Single(e => e.Name == name + "2").Dirent.type);
            ulong other = _fs.MakeDirectory(_fs.Root, name + "d").nodeid;
            Assert.Equal(Errno.OK, _fs.Rename(_fs.Root, name + "2", other, "moved"));
            Assert.Equal((mode & Libc.S_IFMT) >> 12, _fs.List(other, plus: false).Single(e => e.Name == "moved").Dirent.type);
            Assert.Equal(Errno.OK, _fs.Rename(other, "moved", _fs.Root, name + "2"));
            Assert.Equal(FileAttributes.Normal, File.GetAttributes(_tree.At(name + "2")) & (FileAttributes.Normal | FileAttributes.Device));
            Assert.Equal(Errno.EEXIST, _fs.Error(FuseOpcode.FUSE_MKNOD, _fs.Root, FuseClient.NodeArgs(name + "2", mode, device)));
        }

        Assert.Equal(Errno.EINVAL, _fs.Error(FuseOpcode.FUSE_MKNOD, _fs.Root, FuseClient.NodeArgs("dir", Libc.S_IFDIR | 0x180, 0)));
        _tree.Write("f", "F");
        Assert.Equal(Errno.OK, _fs.Rename(_fs.Root, "f", _fs.Root, "g", Libc.RENAME_WHITEOUT));
        fuse_attr left = _fs.Lookup(_fs.Root, "f").attr;
        Assert.Equal((Libc.S_IFCHR, 0u), (left.mode & Libc.S_IFMT, left.rdev));
        Assert.Equal("F", _tree.Read("g"));
    }

    [Fact]
    public void The_mark_of_a_device_is_closed_to_the_guest()
    {
        (fuse_entry_out file, _) = _fs.Create(_fs.Root, "f", mode: 0x200);
        foreach (string name in (string[])["user.microvm.device", "user.microvm.x"])
        {
            Assert.Equal(Errno.EPERM, _fs.Error(FuseOpcode.FUSE_SETXATTR, file.nodeid, FuseClient.SetXattrArgs(name, new byte[14])));
            Assert.Equal(Errno.ENODATA, _fs.Error(FuseOpcode.FUSE_GETXATTR, file.nodeid, FuseClient.GetXattrArgs(name, 14)));
            Assert.Equal(Errno.ENODATA, _fs.Error(FuseOpcode.FUSE_REMOVEXATTR, file.nodeid, FuseClient.Text(name)));
        }

        Assert.Equal(Libc.S_IFREG | 0x200u, _fs.Lookup(_fs.Root, "f").attr.mode);
    }

    [Fact]
    public void Fifos_and_sockets_are_made_but_never_opened()
    {
        foreach ((string name, uint type) in new[] { ("fifo", Libc.S_IFIFO), ("sock", Libc.S_IFSOCK) })
        {
            fuse_entry_out node = FuseClient.Parse<fuse_entry_out>(_fs.Ok(FuseOpcode.FUSE_MKNOD, _fs.Root, FuseClient.NodeArgs(name, type | 0x180)));
            Assert.Equal(type, node.attr.mode & Libc.S_IFMT);
            Assert.Equal(Errno.ENXIO, _fs.OpenError(node.nodeid, Libc.O_RDONLY));
            Assert.Equal(Errno.ENXIO, _fs.OpenError(node.nodeid, Libc.O_WRONLY));
            Assert.Equal(Errno.ENOTDIR, _fs.Error(FuseOpcode.FUSE_OPENDIR, node.nodeid, new byte[8]));
        }
    }

    [Theory]
    [InlineData(false, 4096u)]
    [InlineData(true, 4096u)]
    [InlineData(false, 300u)]
    [InlineData(true, 500u)]
    [InlineData(true, 1u << 20)]
    public void Thousands_of_entries_are_listed_once_each_with_resuming(bool plus, uint size)
    {
        const int Count = 3000;
        for (int i = 0; i < Count; i++)
        {
            _tree.Write($"file-{i}-{new string('x', i % 100)}", "");
        }

        var entries = _fs.List(_fs.Root, plus, size);
        string[] expected = [.. Directory.GetFileSystemEntries(_tree.Share).Select(p => Path.GetFileName(p)!), ".", ".."];
        Assert.Equal(expected.Order(StringComparer.Ordinal), entries.Select(e => e.Name).Order(StringComparer.Ordinal));
        foreach ((string name, fuse_dirent dirent, fuse_entry_out entry) in entries.Where(e => e.Name[0] != '.').Take(50))
        {
            Assert.Equal((uint)Libc.DT_REG, dirent.type);
            if (plus)
            {
                Assert.Equal(entry.attr.ino, dirent.ino);
                Assert.Equal(entry.nodeid, _fs.Lookup(_fs.Root, name).nodeid);
            }
        }

        Assert.Equal(plus ? Count + 1 : 51, (plus ? 0 : 50) + _fs.Counter("fs.inodes"));
        Assert.All(entries.Where(e => e.Name is "." or ".."), e => Assert.Equal(0ul, e.Entry.nodeid));
    }

    [Fact]
    public void Forgetting_all_references_frees_the_inode_and_its_id_is_not_used_again()
    {
        _tree.Write("f", "");
        ulong node = _fs.Lookup(_fs.Root, "f").nodeid;
        Assert.Equal(node, _fs.Lookup(_fs.Root, "f").nodeid);
        _fs.Forget(node, 1);
        _fs.GetAttr(node);
        _fs.Forget(node, 1);
        Assert.Equal(Errno.ESTALE, _fs.Error(FuseOpcode.FUSE_GETATTR, node, new byte[16]));
        Assert.NotEqual(node, _fs.Lookup(_fs.Root, "f").nodeid);
    }

    [Fact]
    public void Batches_are_forgotten_and_their_count_is_not_believed()
    {
        _tree.Write("a", "");
        _tree.Write("b", "");
        ulong a = _fs.Walk("a");
        ulong b = _fs.Walk("b");
        byte[] body = FuseClient.Join(
            FuseClient.Bytes(new fuse_batch_forget_in { count = uint.MaxValue }),
            FuseClient.Bytes(new fuse_forget_one { nodeid = a, nlookup = 1 }),
            FuseClient.Bytes(new fuse_forget_one { nodeid = 0xDEAD, nlookup = 1 }),
            FuseClient.Bytes(new fuse_forget_one { nodeid = b, nlookup = ulong.MaxValue }));
        fuse_in_header header = new() { len = (uint)(40 + body.Length), opcode = (uint)FuseOpcode.FUSE_BATCH_FORGET };
        _fs.Guest.Send(FsGuest.HighPriority, [FuseClient.Bytes(header), body], []);
        Assert.Equal(1, _fs.Counter("fs.inodes"));
        Assert.Equal(1, _fs.Counter("fs.batch_forget"));
    }
}
