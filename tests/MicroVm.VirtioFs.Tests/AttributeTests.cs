using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Tests.Shared;
using MicroVm.VirtioFs.Protocol;
using Xunit;

namespace MicroVm.VirtioFs.Tests;

public sealed class AttributeTests : IDisposable
{
    private readonly TempTree _tree = new();
    private readonly FuseClient _fs;

    public AttributeTests() => _fs = new FuseClient(_tree.Share);

    public void Dispose()
    {
        _fs.Dispose();
        _tree.Dispose();
    }

    [Fact]
    public void Attributes_are_the_hosts()
    {
        _tree.Write("f", "12345");
        fuse_attr attr = _fs.Lookup(_fs.Root, "f").attr;
        Libc.statx_t host = TempTree.Stat(_tree.At("f"));
        Assert.Equal((host.stx_ino, 5ul, (uint)host.stx_mode, 1u), (attr.ino, attr.size, attr.mode, attr.nlink));
        Assert.Equal((host.stx_uid, host.stx_gid, host.stx_blocks), (attr.uid, attr.gid, attr.blocks));
        Assert.Equal(((ulong)host.stx_mtime.tv_sec, host.stx_mtime.tv_nsec), (attr.mtime, attr.mtimensec));

        fuse_statx statx = FuseClient.Parse<fuse_statx_out>(_fs.Ok(
            FuseOpcode.FUSE_STATX, _fs.Walk("f"), FuseClient.Bytes(new fuse_statx_in { sx_mask = 0xFFF }))).stat;
        Assert.Equal((host.stx_ino, 5ul, host.stx_mode), (statx.ino, statx.size, statx.mode));
        Assert.True(statx.btime.tv_sec > 0 || (statx.mask & Libc.STATX_BTIME) == 0);
    }

    [Fact]
    public void Mode_size_and_times_are_set()
    {
        _tree.Write("f", "12345");
        ulong node = _fs.Walk("f");
        fuse_attr attr = _fs.SetAttr(node, new fuse_setattr_in { valid = Fuse.FATTR_MODE, mode = 0x1C0 });
        Assert.Equal(Libc.S_IFREG | 0x1C0, attr.mode);
        attr = _fs.SetAttr(node, new fuse_setattr_in { valid = Fuse.FATTR_SIZE, size = 1 << 20 });
        Assert.Equal(1ul << 20, attr.size);
        fuse_setattr_in times = new() { valid = Fuse.FATTR_ATIME | Fuse.FATTR_MTIME, atime = 1000, atimensec = 5, mtime = unchecked((ulong)-7), mtimensec = 999_999_999 };
        attr = _fs.SetAttr(node, times);
        Assert.Equal((1000ul, 5u), (attr.atime, attr.atimensec));
        Libc.statx_t host = TempTree.Stat(_tree.At("f"));
        Assert.Equal((-7L, 999_999_999u), (host.stx_mtime.tv_sec, host.stx_mtime.tv_nsec));

        long before = DateTimeOffset.UtcNow.ToUnixTimeSeconds() - 2;
        attr = _fs.SetAttr(node, new fuse_setattr_in { valid = Fuse.FATTR_MTIME | Fuse.FATTR_MTIME_NOW });
        Assert.True((long)attr.mtime >= before);
        Assert.Equal(1000ul, attr.atime);
        times.mtimensec = (uint)Libc.UTIME_OMIT;
        Assert.Equal(Errno.EINVAL, _fs.Error(FuseOpcode.FUSE_SETATTR, node, FuseClient.Bytes(times)));
    }

    [Fact]
    public void Size_is_set_through_a_handle_and_only_its_own()
    {
        (fuse_entry_out entry, ulong fh) = _fs.Create(_fs.Root, "f");
        (fuse_entry_out other, ulong otherHandle) = _fs.Create(_fs.Root, "g");
        _fs.SetAttr(entry.nodeid, new fuse_setattr_in { valid = Fuse.FATTR_SIZE | Fuse.FATTR_FH, fh = fh, size = 9 });
        Assert.Equal(9, new FileInfo(_tree.At("f")).Length);
        fuse_setattr_in forged = new() { valid = Fuse.FATTR_SIZE | Fuse.FATTR_FH, fh = otherHandle, size = 9 };
        Assert.Equal(Errno.EBADF, _fs.Error(FuseOpcode.FUSE_SETATTR, entry.nodeid, FuseClient.Bytes(forged)));
        Assert.Equal(0ul, _fs.GetAttr(other.nodeid).size);
        Assert.Equal(Errno.EINVAL, _fs.Error(FuseOpcode.FUSE_SETATTR, _fs.Root, FuseClient.Bytes(new fuse_setattr_in { valid = Fuse.FATTR_SIZE })));
        Assert.Equal(Errno.EINVAL, _fs.Error(FuseOpcode.FUSE_SETATTR, entry.nodeid, FuseClient.Bytes(
            new fuse_setattr_in { valid = Fuse.FATTR_SIZE, size = ulong.MaxValue })));
    }

    [Fact]
    public void A_links_own_times_are_set_not_its_targets()
    {
        _tree.Write("target", "");
        Libc.statx_t before = TempTree.Stat(_tree.At("target"));
        ulong link = _fs.Symlink(_fs.Root, "l", "target").nodeid;
        _fs.SetAttr(link, new fuse_setattr_in { valid = Fuse.FATTR_MTIME, mtime = 77 });
        Assert.Equal(77, TempTree.Stat(_tree.At("l")).stx_mtime.tv_sec);
        Assert.Equal(before.stx_mtime, TempTree.Stat(_tree.At("target")).stx_mtime);
    }

    [SkippableFact]
    public void New_files_belong_to_the_guests_user_and_its_umask_counts()
    {
        Skip.IfNot(TempTree.IsRoot, "giving files to other users needs root");
        _fs.Uid = 1234;
        _fs.Gid = 5678;
        (fuse_entry_out file, _) = _fs.Create(_fs.Root, "f", Libc.O_RDWR, 0x1B6);
        fuse_entry_out dir = _fs.MakeDirectory(_fs.Root, "d");
        fuse_entry_out link = _fs.Symlink(_fs.Root, "l", "f");
        fuse_entry_out fifo = FuseClient.Parse<fuse_entry_out>(_fs.Ok(FuseOpcode.FUSE_MKNOD, _fs.Root, FuseClient.NodeArgs("p", Libc.S_IFIFO | 0x1FF)));
        Assert.All(new[] { file, dir, link, fifo }, e => Assert.Equal((1234u, 5678u), (e.attr.uid, e.attr.gid)));
        Assert.Equal((0x1A4u, 0x1EDu, 0x1EDu), (file.attr.mode & 0xFFF, dir.attr.mode & 0xFFF, fifo.attr.mode & 0xFFF));

        // The next request is root's again.
        (_fs.Uid, _fs.Gid) = (0, 0);
        (file, _) = _fs.Create(_fs.Root, "g");
        Assert.Equal((0u, 0u), (file.attr.uid, file.attr.gid));
        fuse_attr owner = _fs.SetAttr(file.nodeid, new fuse_setattr_in { valid = Fuse.FATTR_UID | Fuse.FATTR_GID, uid = 42, gid = 43 });
        Assert.Equal((42u, 43u), (owner.uid, owner.gid));
        owner = _fs.SetAttr(file.nodeid, new fuse_setattr_in { valid = Fuse.FATTR_GID, gid = 44 });
        Assert.Equal((42u, 44u), (owner.uid, owner.gid));
    }

    [SkippableFact]
    public void The_guests_kernel_judges_permissions_not_the_hosts()
    {
        Skip.IfNot(TempTree.IsRoot, "switching users needs root");
        Directory.CreateDirectory(_tree.At("roots"));
        File.SetUnixFileMode(_tree.At("roots"), UnixFileMode.UserRead);
        ulong dir = _fs.Walk("roots");
        (_fs.Uid, _fs.Gid) = (1000, 1000);
        (fuse_entry_out entry, _) = _fs.Create(dir, "f");
        Assert.Equal(1000u, entry.attr.uid);
    }

    [SkippableFact]
    public void An_unmapped_user_makes_nothing()
    {
        Skip.IfNot(TempTree.IsRoot, "switching users needs root");
        _fs.Uid = uint.MaxValue;
        Assert.Equal(Errno.EOVERFLOW, _fs.Error(FuseOpcode.FUSE_CREATE, _fs.Root, _fs.CreateArgs("f", Libc.O_RDWR, 0x1A4)));
        Assert.False(File.Exists(_tree.At("f")));
    }

    [SkippableFact]
    public void A_set_gid_directory_gives_its_group()
    {
        Skip.IfNot(TempTree.IsRoot, "giving files to other users needs root");
        fuse_entry_out dir = _fs.MakeDirectory(_fs.Root, "d");
        _fs.SetAttr(dir.nodeid, new fuse_setattr_in { valid = Fuse.FATTR_GID | Fuse.FATTR_MODE, gid = 77, mode = 0x5FF });
        (_fs.Uid, _fs.Gid) = (1000, 1000);
        (fuse_entry_out file, _) = _fs.Create(dir.nodeid, "f");
        Assert.Equal((1000u, 77u), (file.attr.uid, file.attr.gid));
        Assert.Equal(Libc.S_ISGID, _fs.MakeDirectory(dir.nodeid, "sub").attr.mode & Libc.S_ISGID);
    }

    [SkippableTheory]
    [InlineData("write")]
    [InlineData("truncate")]
    [InlineData("open")]
    public void Set_id_bits_are_cleared_when_the_request_says_so_and_kept_otherwise(string how)
    {
        Skip.IfNot(TempTree.IsRoot, "as root only the missing CAP_FSETID makes the kernel clear them");
        foreach (bool kill in new[] { true, false, true })
        {
            (fuse_entry_out entry, ulong fh) = _fs.Create(_fs.Root, $"f{how}{kill}");
            _fs.SetAttr(entry.nodeid, new fuse_setattr_in { valid = Fuse.FATTR_MODE, mode = 0xDED });
            switch (how)
            {
                case "write":
                    _fs.Write(entry.nodeid, fh, 0, [1], kill ? Fuse.FUSE_WRITE_KILL_SUIDGID : 0);
                    break;
                case "truncate":
                    _fs.SetAttr(entry.nodeid, new fuse_setattr_in { valid = Fuse.FATTR_SIZE | (kill ? Fuse.FATTR_KILL_SUIDGID : 0), size = 3 });
                    break;
                default:
                    _fs.Open(entry.nodeid, Libc.O_WRONLY | Libc.O_TRUNC, kill ? Fuse.FUSE_OPEN_KILL_SUIDGID : 0);
                    break;
            }

            Assert.Equal(kill ? 0x1EDu : 0xDEDu, _fs.GetAttr(entry.nodeid).mode & 0xFFF);
        }
    }

    [SkippableFact]
    public void Owner_and_mode_together_keep_the_modes_set_id_bits()
    {
        Skip.IfNot(TempTree.IsRoot, "chown needs root");
        (fuse_entry_out entry, _) = _fs.Create(_fs.Root, "f");
        fuse_attr attr = _fs.SetAttr(entry.nodeid, new fuse_setattr_in { valid = Fuse.FATTR_UID | Fuse.FATTR_MODE, uid = 5, mode = 0x9ED });
        Assert.Equal((5u, 0x9EDu), (attr.uid, attr.mode & 0xFFF));
        attr = _fs.SetAttr(entry.nodeid, new fuse_setattr_in { valid = Fuse.FATTR_UID, uid = 6 });
        Assert.Equal(0x1EDu, attr.mode & 0xFFF);
    }

    [Fact]
    public void Statfs_is_the_hosts_below_an_export()
    {
        fuse_kstatfs st = FuseClient.Parse<fuse_statfs_out>(_fs.Ok(FuseOpcode.FUSE_STATFS, _fs.Root, [])).st;
        Assert.True(st.blocks > 0 && st.bsize > 0 && st.namelen == 255);
        Assert.Equal(0ul, FuseClient.Parse<fuse_statfs_out>(_fs.Ok(FuseOpcode.FUSE_STATFS, 1, [])).st.blocks);
    }

    [Fact]
    public void User_attributes_are_set_listed_read_and_removed()
    {
        _tree.Write("f", "");
        ulong node = _fs.Walk("f");
        byte[] value = new byte[2000];
        new Random(3).NextBytes(value);
        byte[] set = FuseClient.SetXattrArgs("user.a", value);
        Skip(_fs.Error(FuseOpcode.FUSE_SETXATTR, node, set, 0));
        Assert.Equal(Errno.EEXIST, _fs.Error(FuseOpcode.FUSE_SETXATTR, node, FuseClient.SetXattrArgs("user.a", [1], Libc.XATTR_CREATE), 0));
        Assert.Equal(Errno.ENODATA, _fs.Error(FuseOpcode.FUSE_SETXATTR, node, FuseClient.SetXattrArgs("user.b", [1], Libc.XATTR_REPLACE), 0));
        _fs.Ok(FuseOpcode.FUSE_SETXATTR, node, FuseClient.SetXattrArgs("user.empty", []), 0);
        Assert.Equal(2000u, FuseClient.Parse<fuse_getxattr_out>(_fs.Ok(FuseOpcode.FUSE_GETXATTR, node, FuseClient.GetXattrArgs("user.a", 0))).size);
        Assert.Equal(value, _fs.Ok(FuseOpcode.FUSE_GETXATTR, node, FuseClient.GetXattrArgs("user.a", 4096)));
        Assert.Equal(Errno.ERANGE, _fs.Error(FuseOpcode.FUSE_GETXATTR, node, FuseClient.GetXattrArgs("user.a", 100)));
        byte[] list = _fs.Ok(FuseOpcode.FUSE_LISTXATTR, node, FuseClient.Bytes(new fuse_getxattr_in { size = 4096 }));
        Assert.Equal(FuseClient.Join(FuseClient.Text("user.a"), FuseClient.Text("user.empty")).Order(), list.Order());
        _fs.Ok(FuseOpcode.FUSE_REMOVEXATTR, node, FuseClient.Text("user.a"), 0);
        Assert.Equal(Errno.ENODATA, _fs.Error(FuseOpcode.FUSE_GETXATTR, node, FuseClient.GetXattrArgs("user.a", 100)));

        static void Skip(Errno e) => Xunit.Skip.If(e == Errno.EOPNOTSUPP, "the temp directory's file system has no user attributes");
    }

    [Theory]
    [InlineData("system.nfs4_acl", Errno.EOPNOTSUPP, Errno.EOPNOTSUPP)]
    [InlineData("nothing", Errno.EOPNOTSUPP, Errno.EOPNOTSUPP)]
    [InlineData("user.microvm.trusted.x", Errno.ENODATA, Errno.EPERM)]
    [InlineData("user.microvm.security.ima", Errno.ENODATA, Errno.EPERM)]
    public void Attributes_that_are_not_the_guests_are_refused(string name, Errno read, Errno write)
    {
        Assert.Equal(read, _fs.Error(FuseOpcode.FUSE_GETXATTR, _fs.Root, FuseClient.GetXattrArgs(name, 100)));
        Assert.Equal(write, _fs.Error(FuseOpcode.FUSE_SETXATTR, _fs.Root, FuseClient.SetXattrArgs(name, [1]), 0));
        Assert.Equal(read, _fs.Error(FuseOpcode.FUSE_REMOVEXATTR, _fs.Root, FuseClient.Text(name), 0));
    }

    [Theory]
    [InlineData("trusted.overlay.opaque")]
    [InlineData("security.ima")]
    public unsafe void Attributes_that_mean_something_to_the_host_have_another_name_there(string name)
    {
        _tree.Write("f", "");
        ulong node = _fs.Walk("f");
        Errno error = _fs.Error(FuseOpcode.FUSE_SETXATTR, node, FuseClient.SetXattrArgs(name, "y"u8.ToArray()), 0);
        Xunit.Skip.If(error == Errno.EOPNOTSUPP, "the temp directory's file system has no user attributes");
        Assert.Equal(Errno.OK, error);
        Assert.Equal("y"u8.ToArray(), _fs.Ok(FuseOpcode.FUSE_GETXATTR, node, FuseClient.GetXattrArgs(name, 10)));
        byte[] list = _fs.Ok(FuseOpcode.FUSE_LISTXATTR, node, FuseClient.Bytes(new fuse_getxattr_in { size = 4096 }));
        Assert.Equal(FuseClient.Text(name), list);
        byte[] host = new byte[4096];
        fixed (byte* path = FuseClient.Text(_tree.At("f")), to = host)
        {
            int length = (int)Libc.listxattr(path, to, 4096);
            Assert.Equal(FuseClient.Text("user.microvm." + name), host[..length]);
        }

        _fs.Ok(FuseOpcode.FUSE_REMOVEXATTR, node, FuseClient.Text(name), 0);
        Assert.Equal(Errno.ENODATA, _fs.Error(FuseOpcode.FUSE_GETXATTR, node, FuseClient.GetXattrArgs(name, 10)));
    }

    [Fact]
    public void Overlays_hint_is_accepted_where_it_cannot_be_kept()
    {
        ulong link = _fs.Symlink(_fs.Root, "l", "nowhere").nodeid;
        _fs.Ok(FuseOpcode.FUSE_SETXATTR, link, FuseClient.SetXattrArgs("trusted.overlay.origin", [1]), 0);
        Assert.Equal(Errno.EPERM, _fs.Error(FuseOpcode.FUSE_SETXATTR, link, FuseClient.SetXattrArgs("trusted.overlay.opaque", [1]), 0));
        Assert.Equal(Errno.ENODATA, _fs.Error(FuseOpcode.FUSE_GETXATTR, link, FuseClient.GetXattrArgs("trusted.overlay.origin", 9)));
    }

    [Fact]
    public void Flags_of_files_are_read_and_other_ioctls_do_not_exist()
    {
        (fuse_entry_out entry, ulong fh) = _fs.Create(_fs.Root, "f");
        fuse_ioctl_in get = new() { fh = fh, cmd = Libc.FS_IOC_GETFLAGS, out_size = 4 };
        byte[] reply = _fs.Call(FuseOpcode.FUSE_IOCTL, entry.nodeid, FuseClient.Bytes(get));
        Assert.True(_fs.LastError is Errno.OK or Errno.ENOTTY or Errno.EOPNOTSUPP, _fs.LastError.ToString());
        Assert.Equal(_fs.LastError == Errno.OK ? 20 : 0, reply.Length);
        foreach (uint command in (uint[])[0x5401, 0x40049409, 0xC0189436, Libc.FS_IOC_GETFLAGS | 0x100])
        {
            get.cmd = command;
            Assert.Equal(Errno.ENOTTY, _fs.Error(FuseOpcode.FUSE_IOCTL, entry.nodeid, FuseClient.Bytes(get)));
        }

        get.cmd = Libc.FS_IOC_SETFLAGS;
        get.in_size = 4;
        Assert.Equal(Errno.EINVAL, _fs.Error(FuseOpcode.FUSE_IOCTL, entry.nodeid, FuseClient.Bytes(get)));
        get.fh = 99;
        Assert.Equal(Errno.EBADF, _fs.Error(FuseOpcode.FUSE_IOCTL, entry.nodeid, FuseClient.Join(FuseClient.Bytes(get), new byte[4])));
    }

    /// <summary>Every case of a write: with the bits and execution by the group or without, by one who may keep them, a member, others.</summary>
    [SkippableTheory]
    [InlineData(0xDED, false, 5u, 0xDED)] // 06755
    [InlineData(0xDED, true, 5u, 0x1ED)]
    [InlineData(0xDED, true, 0u, 0x1ED)]
    [InlineData(0x5A4, true, 5u, 0x1A4)] // 02644: no execution by the group
    [InlineData(0x5A4, true, 0u, 0x5A4)]
    [InlineData(0x5A4, false, 5u, 0x5A4)]
    [InlineData(0x9ED, true, 0u, 0x1ED)] // 04755
    public void Set_id_bits_go_when_the_guests_kernel_says_so(int mode, bool kill, uint group, int left)
    {
        Skip.IfNot(TempTree.IsRoot, "only root may set another group's bits");
        (fuse_entry_out entry, ulong fh) = _fs.Create(_fs.Root, "f");
        Action[] changes =
        [
            () => _fs.Write(entry.nodeid, fh, 0, [1, 2], kill ? Fuse.FUSE_WRITE_KILL_SUIDGID : 0),
            () => _fs.SetAttr(entry.nodeid, new fuse_setattr_in { valid = Fuse.FATTR_SIZE | (kill ? Fuse.FATTR_KILL_SUIDGID : 0), size = 1 }),
            () => _fs.Release(entry.nodeid, _fs.Open(entry.nodeid, Libc.O_RDWR | Libc.O_TRUNC, kill ? Fuse.FUSE_OPEN_KILL_SUIDGID : 0)),
        ];
        foreach (Action change in changes)
        {
            File.SetUnixFileMode(_tree.At("f"), (UnixFileMode)mode);
            _fs.Gid = group;
            change();
            Assert.Equal(left, (int)File.GetUnixFileMode(_tree.At("f")));
        }

        // What one request gave up, the next has again.
        _fs.Gid = 0;
        Directory.CreateDirectory(_tree.At("d"));
        File.SetUnixFileMode(_tree.At("d"), (UnixFileMode)0x5FF);
        (fuse_entry_out made, _) = _fs.Create(_fs.Walk("d"), "g", mode: 0x5ED);
        Assert.Equal(0x5EDu, made.attr.mode & 0xFFF);
    }
}
