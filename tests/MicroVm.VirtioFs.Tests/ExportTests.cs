using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Tests.Shared;
using MicroVm.VirtioFs.Exports;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VmmControl;
using Xunit;

namespace MicroVm.VirtioFs.Tests;

public sealed class ExportTests : IDisposable
{
    private readonly TempTree _tree = new();

    public void Dispose() => _tree.Dispose();

    [Fact]
    public void The_root_lists_the_exports_and_nothing_can_be_changed_there()
    {
        _tree.Write("single", "file");
        Directory.CreateDirectory(_tree.At("a"));
        using FuseClient fs = new(
            FuseClient.Export("dir", _tree.At("a")), FuseClient.Export("file", _tree.At("single")), FuseClient.Export("ro", _tree.Share, readOnly: true));
        Assert.Equal([".", "..", "dir", "file", "ro"], fs.List(1, plus: false).Select(e => e.Name));
        Assert.Equal([".", "..", "dir", "file", "ro"], fs.List(1, plus: true, 200).Select(e => e.Name));
        Assert.Equal(Libc.S_IFDIR | 0x16Du, fs.GetAttr(1).mode);
        ulong file = fs.Lookup(1, "file").nodeid;
        Assert.Equal("file"u8.ToArray(), fs.Read(file, fs.Open(file, Libc.O_RDONLY), 0, 100));
        Assert.Equal(Errno.ENOENT, fs.LookupError(1, "other"));
        Assert.Equal(1ul, fs.Lookup(1, "..").nodeid);
        Assert.Equal(Errno.EROFS, fs.Error(FuseOpcode.FUSE_MKDIR, 1, FuseClient.Join(FuseClient.Bytes(default(fuse_mkdir_in)), FuseClient.Text("d"))));
        Assert.Equal(Errno.EROFS, fs.Error(FuseOpcode.FUSE_CREATE, 1, fs.CreateArgs("f", Libc.O_RDWR, 0x1A4)));
        Assert.Equal(Errno.EROFS, fs.Error(FuseOpcode.FUSE_UNLINK, 1, FuseClient.Text("file"), 0));
        Assert.Equal(Errno.EROFS, fs.Rename(1, "file", 1, "x"));
        Assert.Equal(Errno.EROFS, fs.Error(FuseOpcode.FUSE_SETATTR, 1, FuseClient.Bytes(new fuse_setattr_in { valid = Fuse.FATTR_MODE })));
        Assert.Equal(Errno.ENODATA, fs.Error(FuseOpcode.FUSE_GETXATTR, 1, FuseClient.GetXattrArgs("user.x", 10)));
        fs.Ok(FuseOpcode.FUSE_SYNCFS, 1, new byte[8], 0);

        // A guest does not keep the host's file system busy by an export that it may not write to.
        ulong readOnly = fs.Lookup(1, "ro").nodeid, writable = fs.Lookup(1, "dir").nodeid;
        Assert.Equal(Errno.EROFS, fs.Error(FuseOpcode.FUSE_SYNCFS, readOnly, new byte[8]));
        fs.Ok(FuseOpcode.FUSE_SYNCFS, writable, new byte[8], 0);
    }

    [Fact]
    public void A_read_only_export_refuses_every_change()
    {
        _tree.Write("f", "F");
        using FuseClient fs = new(_tree.Share, readOnly: true);
        ulong f = fs.Walk("f");
        Assert.Equal("F"u8.ToArray(), fs.Read(f, fs.Open(f, Libc.O_RDONLY), 0, 10));
        (FuseOpcode Opcode, ulong Node, byte[] Args)[] changes =
        [
            (FuseOpcode.FUSE_CREATE, fs.Root, fs.CreateArgs("n", Libc.O_RDWR, 0x1A4)),
            (FuseOpcode.FUSE_CREATE, fs.Root, fs.CreateArgs("f", Libc.O_RDWR, 0x1A4)),
            (FuseOpcode.FUSE_TMPFILE, fs.Root, fs.CreateArgs("n", Libc.O_RDWR, 0x1A4)),
            (FuseOpcode.FUSE_MKDIR, fs.Root, FuseClient.Join(new byte[8], FuseClient.Text("n"))),
            (FuseOpcode.FUSE_MKNOD, fs.Root, FuseClient.NodeArgs("n", Libc.S_IFIFO)),
            (FuseOpcode.FUSE_SYMLINK, fs.Root, FuseClient.Join(FuseClient.Text("n"), FuseClient.Text("t"))),
            (FuseOpcode.FUSE_LINK, fs.Root, FuseClient.LinkArgs(f, "n")),
            (FuseOpcode.FUSE_UNLINK, fs.Root, FuseClient.Text("f")),
            (FuseOpcode.FUSE_RMDIR, fs.Root, FuseClient.Text("f")),
            (FuseOpcode.FUSE_RENAME2, fs.Root, FuseClient.RenameArgs("f", fs.Root, "g", 0)),
            (FuseOpcode.FUSE_SETATTR, f, FuseClient.Bytes(new fuse_setattr_in { valid = Fuse.FATTR_SIZE })),
            (FuseOpcode.FUSE_SETXATTR, f, FuseClient.SetXattrArgs("user.a", [1])),
            (FuseOpcode.FUSE_REMOVEXATTR, f, FuseClient.Text("user.a")),
            (FuseOpcode.FUSE_OPEN, f, FuseClient.Bytes(new fuse_open_in { flags = Libc.O_WRONLY })),
            (FuseOpcode.FUSE_OPEN, f, FuseClient.Bytes(new fuse_open_in { flags = Libc.O_RDWR })),
            (FuseOpcode.FUSE_OPEN, f, FuseClient.Bytes(new fuse_open_in { flags = Libc.O_RDONLY | Libc.O_TRUNC })),
        ];
        Assert.All(changes, c => Assert.Equal(Errno.EROFS, fs.Error(c.Opcode, c.Node, c.Args)));
        ulong fh = fs.Open(f, Libc.O_RDONLY);
        Assert.Equal(Errno.EBADF, fs.Error(FuseOpcode.FUSE_WRITE, f, FuseClient.WriteArgs(fh, 0, [1])));
        Assert.Equal(Errno.EBADF, fs.Error(FuseOpcode.FUSE_FALLOCATE, f, FuseClient.Bytes(new fuse_fallocate_in { fh = fh, length = 10 })));
        fuse_setattr_in truncate = new() { valid = Fuse.FATTR_SIZE | Fuse.FATTR_FH, fh = fh };
        Assert.Equal(Errno.EROFS, fs.Error(FuseOpcode.FUSE_SETATTR, f, FuseClient.Bytes(truncate)));
        Assert.Equal(["f"], Directory.GetFileSystemEntries(_tree.Share).Select(Path.GetFileName));
        Assert.Equal("F", _tree.Read("f"));
    }

    [Fact]
    public void Nothing_moves_between_exports()
    {
        Directory.CreateDirectory(_tree.At("a"));
        Directory.CreateDirectory(_tree.At("b"));
        _tree.Write("a/f", "F");
        using FuseClient fs = new(FuseClient.Export("a", _tree.At("a")), FuseClient.Export("b", _tree.At("b")));
        ulong a = fs.Lookup(1, "a").nodeid;
        ulong b = fs.Lookup(1, "b").nodeid;
        Assert.Equal(Errno.EXDEV, fs.Rename(a, "f", b, "f"));
        Assert.Equal(Errno.EXDEV, fs.Error(FuseOpcode.FUSE_LINK, b, FuseClient.LinkArgs(fs.Lookup(a, "f").nodeid, "f")));
        Assert.True(File.Exists(_tree.At("a/f")));
    }

    [Fact]
    public void One_tree_exported_with_other_rights_gives_two_inodes_with_their_own_rules()
    {
        _tree.Write("f", "F");
        using FuseClient fs = new(FuseClient.Export("rw", _tree.Share), FuseClient.Export("ro", _tree.Share, readOnly: true));
        ulong writable = fs.Lookup(fs.Lookup(1, "rw").nodeid, "f").nodeid;
        ulong readOnly = fs.Lookup(fs.Lookup(1, "ro").nodeid, "f").nodeid;
        Assert.NotEqual(writable, readOnly);
        fs.Open(writable, Libc.O_RDWR);
        Assert.Equal(Errno.EROFS, fs.OpenError(readOnly, Libc.O_RDWR));
    }

    [Fact]
    public void Exports_come_and_go_and_a_removed_ones_descriptors_are_closed()
    {
        Directory.CreateDirectory(_tree.At("a"));
        _tree.Write("a/f", "F");
        using FuseClient fs = new();
        VirtioFsDevice device = fs.Guest.Device;
        Assert.Equal(Errno.ENOENT, fs.LookupError(1, "a"));
        Assert.True(device.TryAddExport(FuseClient.Export("a", _tree.At("a")), out string? error), error);
        ulong a = fs.Lookup(1, "a").nodeid;
        ulong f = fs.Lookup(a, "f").nodeid;
        ulong fh = fs.Open(f, Libc.O_RDWR);
        ulong dh = fs.OpenDirectory(a);
        Assert.True(DescriptorsBelow(_tree.At("a")) >= 5);
        Assert.True(device.RemoveExport("a"));
        Assert.Equal(0, DescriptorsBelow(_tree.At("a")));
        Assert.False(device.RemoveExport("a"));
        Assert.Equal(Errno.ENOENT, fs.LookupError(1, "a"));
        Assert.Equal(Errno.ESTALE, fs.LookupError(a, "f"));
        Assert.Equal(Errno.ESTALE, fs.Error(FuseOpcode.FUSE_GETATTR, f, new byte[16]));
        Assert.Equal(Errno.EBADF, fs.Error(FuseOpcode.FUSE_READ, f, FuseClient.ReadArgs(fh, 0, 10)));
        Assert.Equal(Errno.EBADF, fs.Error(FuseOpcode.FUSE_READDIR, a, FuseClient.ReadArgs(dh, 0, 1000)));

        // The same name may come back; the old ids stay dead.
        Assert.True(device.TryAddExport(FuseClient.Export("a", _tree.Share), out error), error);
        Assert.NotEqual(a, fs.Lookup(1, "a").nodeid);
        Assert.Equal(Errno.ESTALE, fs.LookupError(a, "f"));
        fs.Ok(FuseOpcode.FUSE_RELEASE, f, FuseClient.Bytes(new fuse_release_in { fh = fh }), 0);
        fs.Ok(FuseOpcode.FUSE_RELEASEDIR, a, FuseClient.Bytes(new fuse_release_in { fh = dh }), 0);
        fs.Forget(a, 1);
        fs.Forget(f, 1);
        Assert.Equal((0, 1), (fs.Counter("fs.handles"), fs.Counter("fs.inodes")));
    }

    [Theory]
    [InlineData("")]
    [InlineData(".")]
    [InlineData("..")]
    [InlineData("a/b")]
    [InlineData("a\0b")]
    public void Bad_export_names_are_refused_and_their_descriptor_closed(string name)
    {
        using FuseClient fs = new();
        VirtioFsExport export = FuseClient.Export(name, _tree.Share);
        Assert.False(fs.Guest.Device.TryAddExport(export, out string? error));
        Assert.Contains("path component", error, StringComparison.Ordinal);
        Assert.True(export.Fd.IsClosed);
    }

    [Fact]
    public void A_name_given_twice_and_what_is_no_file_are_refused()
    {
        using FuseClient fs = new(FuseClient.Export("x", _tree.Share));
        Assert.False(fs.Guest.Device.TryAddExport(FuseClient.Export("x", _tree.Share), out string? error));
        Assert.Contains("'x' already", error, StringComparison.Ordinal);
        Assert.False(fs.Guest.Device.TryAddExport(FuseClient.Export("null", "/dev/null"), out error));
        Assert.Contains("neither a directory nor a regular file", error, StringComparison.Ordinal);
    }

    [Fact]
    public void Cache_times_and_open_flags_follow_the_export()
    {
        _tree.Write("f", "");
        using FuseClient fs = new(
            FuseClient.Export("e", _tree.Share, cache: FsCache.Exclusive), FuseClient.Export("s", _tree.Share, cache: FsCache.Shared));
        fuse_entry_out e = fs.Lookup(1, "e");
        fuse_entry_out s = fs.Lookup(1, "s");
        Assert.Equal((0ul, 1ul, 0ul, 1ul), (e.entry_valid, e.attr_valid, s.entry_valid, s.attr_valid));
        fuse_entry_out ef = fs.Lookup(e.nodeid, "f");
        fuse_entry_out sf = fs.Lookup(s.nodeid, "f");
        Assert.Equal((1ul, 1ul), (ef.entry_valid, sf.entry_valid));
        byte[] open = FuseClient.Bytes(default(fuse_open_in));
        uint eFlags = FuseClient.Parse<fuse_open_out>(fs.Ok(FuseOpcode.FUSE_OPEN, ef.nodeid, open)).open_flags;
        uint sFlags = FuseClient.Parse<fuse_open_out>(fs.Ok(FuseOpcode.FUSE_OPEN, sf.nodeid, open)).open_flags;
        Assert.Equal((Fuse.FOPEN_KEEP_CACHE, 0u), (eFlags, sFlags));

        // A close is told where locks hang on it, unless the guest keeps them.
        const uint LocalLocks = 1u << 30;
        Assert.Equal(0u, fs.InitReply.flags2 & LocalLocks);
        Assert.Equal(LocalLocks, fs.Init(flags2: LocalLocks | 2).flags2);
        e = fs.Lookup(1, "e");
        ef = fs.Lookup(e.nodeid, "f");
        Assert.Equal(
            Fuse.FOPEN_KEEP_CACHE | Fuse.FOPEN_NOFLUSH,
            FuseClient.Parse<fuse_open_out>(fs.Ok(FuseOpcode.FUSE_OPEN, ef.nodeid, open)).open_flags);
        s = fs.Lookup(1, "s");

        // A name that does not exist is remembered in one and asked for again in the other.
        fuse_entry_out none = fs.Lookup(e.nodeid, "none");
        Assert.Equal((0ul, 1ul), (none.nodeid, none.entry_valid));
        Assert.Equal(Errno.ENOENT, fs.LookupError(s.nodeid, "none"));
    }

    [SkippableFact]
    public void Each_file_system_is_a_folder_that_the_guest_mounts_by_itself()
    {
        Skip.IfNot(Directory.Exists("/proc/self"), "needs procfs");
        using FuseClient fs = new(FuseClient.Export("a", "/proc/sys"), FuseClient.Export("c", _tree.Share));
        Libc.statx_t stat = TempTree.Stat(_tree.Share);
        string name = $"{stat.stx_dev_major}:{stat.stx_dev_minor}";
        fuse_entry_out folder = fs.Lookup(1, name);
        Assert.Equal(Fuse.FUSE_ATTR_SUBMOUNT, folder.attr.flags);
        fuse_entry_out c = fs.Lookup(folder.nodeid, "c");
        Assert.Equal((fs.Lookup(1, "c").nodeid, stat.stx_ino), (c.nodeid, c.attr.ino));
        Assert.Equal(Errno.ENOENT, fs.LookupError(folder.nodeid, "a"));
        Assert.Equal(Errno.ENOENT, fs.LookupError(folder.nodeid, name));
        Assert.Equal([".", "..", "c"], fs.List(folder.nodeid, plus: false).Select(e => e.Name));
        Assert.Equal(Errno.EROFS, fs.Error(FuseOpcode.FUSE_MKDIR, folder.nodeid, FuseClient.Join(new byte[8], FuseClient.Text("n"))));
        Assert.Equal(Errno.ESTALE, fs.LookupError(folder.nodeid + 7, "c"));
        fs.Init(flags: FuseClient.AllFlags & ~Fuse.FUSE_SUBMOUNTS);
        Assert.Equal(0u, fs.Lookup(1, name).attr.flags);
    }

    [SkippableFact]
    public void Inode_numbers_of_different_file_systems_do_not_collide()
    {
        Skip.IfNot(Directory.Exists("/proc/self") && Directory.Exists("/sys/kernel"), "needs procfs and sysfs");
        using FuseClient fs = new(FuseClient.Export("a", "/proc/sys/kernel"), FuseClient.Export("b", "/sys"), FuseClient.Export("c", _tree.Share));
        fs.Init(flags: FuseClient.AllFlags & ~Fuse.FUSE_SUBMOUNTS);
        fuse_entry_out[] roots = [fs.Lookup(1, "a"), fs.Lookup(1, "b"), fs.Lookup(1, "c")];
        Assert.Equal(3, roots.Select(r => r.attr.ino >> 48).Distinct().Count());
        Assert.Equal(4, roots.Select(r => r.attr.ino).Append(fs.GetAttr(1).ino).Distinct().Count());
    }

    [Fact]
    public void A_second_mount_starts_afresh_and_so_does_the_device_after_a_reset()
    {
        _tree.Write("f", "");
        using FuseClient fs = new(_tree.Share);
        ulong f = fs.Walk("f");
        fs.Open(f, Libc.O_RDONLY);
        fs.Init();
        Assert.Equal((0, 0), (fs.Counter("fs.inodes"), fs.Counter("fs.handles")));
        Assert.Equal(Errno.ESTALE, fs.Error(FuseOpcode.FUSE_GETATTR, f, new byte[16]));
        fs.Lookup(1, "x");
        fs.Ok(FuseOpcode.FUSE_DESTROY, 0, [], 0);
        Assert.Equal(0, fs.Counter("fs.inodes"));
        Assert.Equal(Errno.EIO, fs.LookupError(1, "x"));
        fs.Init();
        fs.Lookup(1, "x");
        fs.Guest.Device.Reset();
        Assert.Equal(0, fs.Counter("fs.inodes"));
        fs.Guest.Start();
        fs.Init();
        Assert.NotEqual(0ul, fs.Lookup(1, "x").nodeid);
    }

    [Fact]
    public void Init_agrees_on_the_protocol()
    {
        using FuseClient fs = new(_tree.Share);
        fuse_init_out reply = fs.InitReply;
        Assert.Equal((7u, 38u, 1u << 20, (ushort)256), (reply.major, reply.minor, reply.max_write, reply.max_pages));
        Assert.NotEqual(0u, reply.flags & Fuse.FUSE_HANDLE_KILLPRIV_V2);
        Assert.Equal(0u, reply.flags & (1u << 16));
        Assert.Equal(Fuse.FUSE_MAX_PAGES, fs.Init(31, Fuse.FUSE_MAX_PAGES | (1 << 16)).flags);
        fuse_init_in old = new() { major = 7, minor = 30 };
        Assert.Equal(Errno.EPROTO, fs.Error(FuseOpcode.FUSE_INIT, 0, FuseClient.Bytes(old)));
        fuse_init_in later = new() { major = 8, minor = 1 };
        byte[] answer = fs.Ok(FuseOpcode.FUSE_INIT, 0, FuseClient.Bytes(later));
        Assert.Equal((7u, 8), (FuseClient.Parse<uint>(answer), answer.Length));
        Assert.Equal(Errno.EINVAL, fs.Error(FuseOpcode.FUSE_INIT, 0, new byte[12]));
        Assert.Equal(7u, FuseClient.Parse<uint>(fs.Ok(FuseOpcode.FUSE_INIT, 0, FuseClient.Bytes(new fuse_init_in { major = 7, minor = 31 })[..16])));
    }

    [Fact]
    public void Config_space_holds_the_tag_and_one_request_queue()
    {
        using VirtioFsDevice device = new("rootfs", []);
        byte[] config = new byte[44];
        device.ReadConfig(0, config);
        Assert.Equal("rootfs"u8.ToArray(), config[..6]);
        Assert.All(config[6..36], b => Assert.Equal(0, b));
        Assert.Equal(1, BitConverter.ToInt32(config, 36));
        byte[] tail = [9, 9, 9, 9];
        device.ReadConfig(uint.MaxValue, tail);
        Assert.Equal(new byte[4], tail);
        device.ReadConfig(38, tail);
        Assert.Equal(new byte[4], tail);
        Assert.Throws<ArgumentException>(() => new VirtioFsDevice(new string('t', 37), []));
        Assert.Throws<ArgumentException>(() => new VirtioFsDevice("", []));
    }

    private static int DescriptorsBelow(string directory) => Directory.GetFileSystemEntries("/proc/self/fd")
        .Select(p => new FileInfo(p).LinkTarget)
        .Count(t => t is not null && (t == directory || t.StartsWith(directory + "/", StringComparison.Ordinal)));
}
