using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Tests.Shared;
using MicroVm.VirtioFs.Descriptors;
using MicroVm.VirtioFs.Protocol;
using Xunit;

namespace MicroVm.VirtioFs.Tests;

/// <summary>dev.microvm.strip-set-id: by no request does a file get set-id bits or capabilities, and directories keep what sets no rights.</summary>
public sealed class SetIdTests : IDisposable
{
    private const uint SetIds = Libc.S_ISUID | Libc.S_ISGID, Plain = 0x1ED;
    private readonly TempTree _tree = new();

    public void Dispose() => _tree.Dispose();

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Files_have_set_ids_where_they_are_not_stripped(bool strip)
    {
        using FuseClient fs = new(FdBudget.OfProcess, strip, FuseClient.Export("x", _tree.Share));
        ulong root = fs.Lookup(1, "x").nodeid;
        uint expected = strip ? Plain : Plain | SetIds;
        (fuse_entry_out made, ulong handle) = fs.Create(root, "made", mode: Plain | SetIds);
        Assert.Equal(expected, made.attr.mode & 0xFFF);
        fuse_mknod_in node = new() { mode = Libc.S_IFREG | Plain | SetIds };
        fs.Ok(FuseOpcode.FUSE_MKNOD, root, FuseClient.Join(FuseClient.Bytes(node), FuseClient.Text("node")));
        Assert.Equal(expected, fs.Lookup(root, "node").attr.mode & 0xFFF);
        fuse_setattr_in change = new() { valid = Fuse.FATTR_MODE, mode = Libc.S_IFREG | Plain | SetIds };
        Assert.Equal(expected, fs.SetAttr(made.nodeid, change).mode & 0xFFF);
        Assert.Equal(expected, fs.SetAttr(made.nodeid, change with { valid = Fuse.FATTR_MODE | Fuse.FATTR_FH, fh = handle }).mode & 0xFFF);
        Assert.Equal((UnixFileMode)expected, File.GetUnixFileMode(_tree.At("made")));
        Assert.Equal((UnixFileMode)expected, File.GetUnixFileMode(_tree.At("node")));

        // A directory's gives its files a group.
        fs.Ok(FuseOpcode.FUSE_MKDIR, root, FuseClient.Join(FuseClient.Bytes(new fuse_mkdir_in { mode = Plain }), FuseClient.Text("folder")));
        ulong folder = fs.Lookup(root, "folder").nodeid;
        Assert.Equal(Plain | Libc.S_ISGID, fs.SetAttr(folder, change with { mode = Libc.S_IFDIR | Plain | Libc.S_ISGID }).mode & 0xFFF);
    }

    /// <summary>What the host put there keeps its bits until the guest decides on the contents.</summary>
    [SkippableTheory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_file_that_has_set_ids_loses_them_when_it_is_written(bool strip)
    {
        Skip.IfNot(Libc.geteuid() == 0, "not root: who may not set such bits loses them whatever the server does");
        foreach (string name in (string[])["written", "cut"])
        {
            _tree.Write(name, "contents");
            File.SetUnixFileMode(_tree.At(name), (UnixFileMode)(Plain | SetIds));
        }

        using FuseClient fs = new(FdBudget.OfProcess, strip, FuseClient.Export("x", _tree.Share));
        ulong root = fs.Lookup(1, "x").nodeid;
        fuse_entry_out written = fs.Lookup(root, "written"), cut = fs.Lookup(root, "cut");
        Assert.Equal(Plain | SetIds, written.attr.mode & 0xFFF);
        fs.Ok(FuseOpcode.FUSE_WRITE, written.nodeid, FuseClient.WriteArgs(fs.Open(written.nodeid, Libc.O_WRONLY), 0, "other"u8.ToArray()));
        _ = fs.SetAttr(cut.nodeid, new fuse_setattr_in { valid = Fuse.FATTR_SIZE, size = 1 });
        UnixFileMode expected = (UnixFileMode)(strip ? Plain : Plain | SetIds);
        Assert.Equal((expected, expected), (File.GetUnixFileMode(_tree.At("written")), File.GetUnixFileMode(_tree.At("cut"))));
    }

    [SkippableTheory]
    [InlineData(true, Errno.EPERM)]
    [InlineData(false, Errno.OK)]
    public void Files_have_capabilities_where_they_are_not_stripped(bool strip, Errno expected)
    {
        Skip.IfNot(Libc.geteuid() == 0, "not root: capabilities of files were NOT tried");
        using FuseClient fs = new(FdBudget.OfProcess, strip, FuseClient.Export("x", _tree.Share));
        ulong root = fs.Lookup(1, "x").nodeid;
        ulong made = fs.Create(root, "made").Entry.nodeid;

        // struct vfs_cap_data (linux/capability.h) of revision 2: CAP_CHOWN, effective.
        byte[] capability = new byte[20];
        (capability[0], capability[3], capability[4]) = (1, 2, 1);
        _ = fs.Call(FuseOpcode.FUSE_SETXATTR, made, FuseClient.SetXattrArgs("security.capability", capability));
        Assert.Equal(expected, fs.LastError);
        _ = fs.Call(FuseOpcode.FUSE_GETXATTR, made, FuseClient.GetXattrArgs("security.capability", 64));
        Assert.Equal(strip ? Errno.ENODATA : Errno.OK, fs.LastError);
    }
}
