using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Tests.Shared;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VmmControl;
using Xunit;

namespace MicroVm.VirtioFs.Tests;

/// <summary>A name that the guest still believes is looked up once more when what it led to is opened and is not there on the host.</summary>
public sealed class StaleNameTests : IDisposable
{
    private readonly TempTree _tree = new();

    public void Dispose() => _tree.Dispose();

    [Theory]
    [InlineData(FsCache.Shared)]
    [InlineData(FsCache.Exclusive)]
    public void A_file_that_the_host_replaced_is_not_opened_by_its_name(FsCache cache)
    {
        _tree.Write("f", "old");
        _tree.Write("g", "newer");
        using FuseClient fs = new(_tree.Share, cache: cache);
        ulong old = fs.Lookup(fs.Root, "f").nodeid;
        fs.Release(old, fs.Open(old, Libc.O_RDONLY));
        File.Move(_tree.At("g"), _tree.At("f"), overwrite: true);
        Assert.Equal(Errno.ESTALE, fs.OpenError(old, Libc.O_RDONLY));
        ulong now = fs.Lookup(fs.Root, "f").nodeid;
        Assert.NotEqual(old, now);
        Assert.Equal("newer"u8.ToArray(), fs.Read(now, fs.Open(now, Libc.O_RDONLY), 0, 10));
    }

    [Fact]
    public void Who_comes_by_another_way_is_told_once()
    {
        _tree.Write("f", "kept");
        using FuseClient fs = new(_tree.Share);
        ulong node = fs.Lookup(fs.Root, "f").nodeid;
        ulong held = fs.Open(node, Libc.O_RDONLY);
        File.Delete(_tree.At("f"));
        Assert.Equal(Errno.ESTALE, fs.OpenError(node, Libc.O_RDONLY));
        fs.Thread = 2;
        Assert.Equal(Errno.ESTALE, fs.OpenError(node, Libc.O_RDONLY));
        Assert.Equal("kept"u8.ToArray(), fs.Read(node, fs.Open(node, Libc.O_RDONLY), 0, 10));
        Assert.Equal("kept"u8.ToArray(), fs.Read(node, held, 0, 10));
    }

    [Fact]
    public void Another_name_of_the_file_will_do()
    {
        _tree.Write("a", "both");
        using FuseClient fs = new(_tree.Share);
        ulong node = fs.Lookup(fs.Root, "a").nodeid;
        fs.Ok(FuseOpcode.FUSE_LINK, fs.Root, FuseClient.LinkArgs(node, "b"), 256);
        Assert.Equal(node, fs.Lookup(fs.Root, "b").nodeid);
        File.Delete(_tree.At("b"));
        Assert.Equal(Errno.ESTALE, fs.OpenError(node, Libc.O_RDONLY));
        Assert.Equal(node, fs.Lookup(fs.Root, "a").nodeid);
        fs.Thread = 2;
        fs.Release(node, fs.Open(node, Libc.O_RDONLY));
    }

    [Fact]
    public void A_file_that_is_an_export_keeps_its_inode()
    {
        _tree.Write("f", "bound");
        using FuseClient fs = new(FuseClient.Export("file", _tree.At("f")));
        ulong node = fs.Lookup(1, "file").nodeid;
        _tree.Write("g", "other");
        File.Move(_tree.At("g"), _tree.At("f"), overwrite: true);
        Assert.Equal("bound"u8.ToArray(), fs.Read(node, fs.Open(node, Libc.O_RDONLY), 0, 10));
    }
}
