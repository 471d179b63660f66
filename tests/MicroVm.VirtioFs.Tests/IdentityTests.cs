using MicroVm.Linux;
using MicroVm.Linux.Jail;
using MicroVm.Linux.Native;
using MicroVm.Tests.Shared;
using MicroVm.VirtioFs.Exports;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VmmControl;
using Xunit;

namespace MicroVm.VirtioFs.Tests;

/// <summary>One inode of the host is one inode of the guest, whichever way it is reached; two are two.</summary>
public sealed class IdentityTests : IDisposable
{
    private readonly TempTree _tree = new();

    public void Dispose() => _tree.Dispose();

    [Fact]
    public void A_folder_within_another_export_is_the_same_inode()
    {
        MakeTree();
        using FuseClient fs = new(FuseClient.Export("all", _tree.Share), FuseClient.Export("part", _tree.At("d")));
        ulong all = fs.Lookup(1, "all").nodeid;
        ulong part = fs.Lookup(1, "part").nodeid;
        ulong f = fs.Lookup(part, "f").nodeid;
        Assert.Equal(part, fs.Lookup(all, "d").nodeid);
        Assert.Equal(f, fs.Lookup(fs.Lookup(all, "d").nodeid, "f").nodeid);
    }

    [Fact]
    public void Exports_with_other_caches_are_other_inodes()
    {
        MakeTree();
        using FuseClient fs = new(
            FuseClient.Export("a", _tree.Share), FuseClient.Export("b", _tree.Share, cache: FsCache.Exclusive), FuseClient.Export("c", _tree.Share));
        ulong[] roots = [fs.Lookup(1, "a").nodeid, fs.Lookup(1, "b").nodeid, fs.Lookup(1, "c").nodeid];
        Assert.NotEqual(roots[0], roots[1]);
        Assert.Equal(roots[0], roots[2]);
    }

    [Theory]
    [InlineData("all")]
    [InlineData("part")]
    public void Removing_one_export_leaves_what_another_leads_to(string removed)
    {
        MakeTree();
        _tree.Write("outside", "");
        using FuseClient fs = new(FuseClient.Export("all", _tree.Share), FuseClient.Export("part", _tree.At("d")));
        ulong all = fs.Lookup(1, "all").nodeid;
        ulong part = fs.Lookup(1, "part").nodeid;
        Assert.Equal(part, fs.Lookup(all, "d").nodeid);
        ulong outside = fs.Lookup(all, "outside").nodeid;
        ulong f = fs.Lookup(part, "f").nodeid;
        ulong handle = fs.Open(f, Libc.O_RDWR);
        Assert.True(fs.Guest.Device.RemoveExport(removed));
        Assert.Equal("text"u8.ToArray(), fs.Read(f, handle, 0, 10));
        Assert.Equal(4ul, fs.GetAttr(f).size);
        Assert.Equal(f, fs.Lookup(part, "f").nodeid);
        Errno expected = removed == "all" ? Errno.ESTALE : Errno.OK;
        Assert.Equal(expected, fs.Error(FuseOpcode.FUSE_GETATTR, outside, new byte[16]));
        Assert.True(fs.Guest.Device.RemoveExport(removed == "all" ? "part" : "all"));
        Assert.Equal(Errno.ESTALE, fs.Error(FuseOpcode.FUSE_GETATTR, f, new byte[16]));
        Assert.Equal(Errno.EBADF, fs.Error(FuseOpcode.FUSE_READ, f, FuseClient.ReadArgs(handle, 0, 10)));
    }

    [Fact]
    public void A_folder_exported_twice_stays_when_one_of_both_is_removed()
    {
        MakeTree();
        using FuseClient fs = new(FuseClient.Export("a", _tree.At("d")), FuseClient.Export("b", _tree.At("d")));
        ulong root = fs.Lookup(1, "a").nodeid;
        Assert.Equal(root, fs.Lookup(1, "b").nodeid);
        ulong f = fs.Lookup(root, "f").nodeid;
        Assert.True(fs.Guest.Device.RemoveExport("a"));
        Assert.Equal(f, fs.Lookup(root, "f").nodeid);
        Assert.Equal(root, fs.Lookup(1, "b").nodeid);
    }

    [SkippableFact]
    public void Renames_and_links_between_views_of_one_folder_do_not_see_the_mounts()
    {
        Skip.IfNot(TempTree.IsRoot, "not root: cloning a mount needs CAP_SYS_ADMIN");
        MakeTree();
        Directory.CreateDirectory(_tree.At("e"));
        using FuseClient fs = new(Mounted("all", _tree.Share), Mounted("part", _tree.At("d")));

        // The folder is met by the mount of "part", its sibling by that of "all".
        ulong part = fs.Lookup(1, "part").nodeid;
        ulong f = fs.Lookup(part, "f").nodeid;
        ulong all = fs.Lookup(1, "all").nodeid;
        Assert.Equal(Errno.EXDEV, fs.Rename(part, "f", fs.Lookup(all, "e").nodeid, "f"));
        Assert.Equal(part, fs.Lookup(all, "d").nodeid);
        ulong e = fs.Lookup(all, "e").nodeid;
        Assert.Equal(Errno.OK, fs.Rename(part, "f", e, "g"));
        Assert.Equal(f, fs.Lookup(e, "g").nodeid);
        Assert.Equal(f, FuseClient.Parse<fuse_entry_out>(fs.Ok(FuseOpcode.FUSE_LINK, part, FuseClient.LinkArgs(f, "h"))).nodeid);
        Assert.Equal("text", _tree.Read("d/h"));
        Assert.Equal("text", _tree.Read("e/g"));
    }

    [SkippableFact]
    public void Names_of_a_lower_inode_of_an_overlay_are_separate_and_those_of_an_upper_one_are_not()
    {
        using Overlay overlay = new(_tree);
        using FuseClient fs = new(overlay.Merged);
        ulong one = fs.Walk("one");
        ulong two = fs.Walk("two");
        ulong three = fs.Walk("three");
        Assert.Equal(3, new[] { one, two, three }.Distinct().Count());
        ulong handle = fs.Open(one, Libc.O_WRONLY);
        fs.Write(one, handle, 0, "ONE!"u8.ToArray());
        fs.Release(one, handle);
        Assert.Equal(("ONE!", "same", "same"), (overlay.Read("one"), overlay.Read("two"), overlay.Read("three")));

        // Copied up, it is the same inode still, and a link to it is.
        Assert.Equal(one, fs.Walk("one"));
        Assert.Equal(one, FuseClient.Parse<fuse_entry_out>(fs.Ok(FuseOpcode.FUSE_LINK, fs.Root, FuseClient.LinkArgs(one, "four"))).nodeid);
        Assert.Equal([one, one, two, three], new[] { fs.Walk("one"), fs.Walk("four"), fs.Walk("two"), fs.Walk("three") });
        Assert.Equal(Errno.OK, fs.Rename(fs.Root, "two", fs.Root, "five"));
        Assert.Equal([two, three], new[] { fs.Walk("five"), fs.Walk("three") });
        Assert.Equal(0x180u, fs.SetAttr(three, new fuse_setattr_in { valid = Fuse.FATTR_MODE, mode = 0x180 }).mode & 0xFFF);
        Assert.Equal((0x180, 0x1A4), (TempTree.Stat(overlay.At("three")).stx_mode & 0xFFF, TempTree.Stat(overlay.At("five")).stx_mode & 0xFFF));
        Assert.Equal([two, three, one], new[] { fs.Walk("five"), fs.Walk("three"), fs.Walk("four") });
    }

    private static VirtioFsExport Mounted(string name, string path)
    {
        using SafeFd file = SafeFd.From(Libc.open(path, Libc.O_PATH | Libc.O_CLOEXEC, 0), "open", path);
        return new VirtioFsExport(name, DetachedMount.Clone(file, readOnly: false, name), ReadOnly: false, FsCache.Shared);
    }

    private void MakeTree()
    {
        Directory.CreateDirectory(_tree.At("d"));
        _tree.Write("d/f", "text");
    }

    /// <summary>An overlay whose lower layer has three names of one file.</summary>
    private sealed class Overlay : IDisposable
    {
        public Overlay(TempTree tree)
        {
            Skip.IfNot(TempTree.IsRoot, "not root: overlays cannot be mounted");
            foreach (string name in (string[])["lower", "upper", "work", "merged"])
            {
                Directory.CreateDirectory(tree.At(name));
            }

            Merged = tree.At("merged");
            tree.Write("lower/one", "same");
            File.SetUnixFileMode(tree.At("lower/one"), (UnixFileMode)0x1A4);
            Run("ln", tree.At("lower/one"), tree.At("lower/two"));
            Run("ln", tree.At("lower/one"), tree.At("lower/three"));
            string options = $"lowerdir={tree.At("lower")},upperdir={tree.At("upper")},workdir={tree.At("work")}";
            Skip.IfNot(Run("mount", "-t", "overlay", "overlay", "-o", options, Merged) == 0, "no overlay can be mounted on this file system");
        }

        public string Merged { get; }

        public string At(string name) => Path.Combine(Merged, name);

        public string Read(string name) => File.ReadAllText(At(name));

        public void Dispose() => Run("umount", "-l", Merged);

        private static int Run(string program, params string[] arguments)
        {
            using System.Diagnostics.Process process = System.Diagnostics.Process.Start(program, arguments);
            process.WaitForExit();
            return process.ExitCode;
        }
    }
}
