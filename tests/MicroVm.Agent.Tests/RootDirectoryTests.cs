using MicroVm.Agent.Rootfs;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using Xunit;

namespace MicroVm.Agent.Tests;

public sealed class RootDirectoryTests : IDisposable
{
    private readonly string _path = Directory.CreateTempSubdirectory().FullName;
    private readonly RootDirectory _root;

    public RootDirectoryTests() => _root = RootDirectory.At(_path);

    public void Dispose()
    {
        _root.Dispose();
        Directory.Delete(_path, recursive: true);
    }

    [Fact]
    public void Missing_directories_are_made()
    {
        _root.MakeDirectory("/a/b/c").Dispose();
        Assert.True(Directory.Exists(_path + "/a/b/c"));
        _root.MakeDirectory("/a/b/c").Dispose();
    }

    [Fact]
    public void Links_stay_in_the_root()
    {
        Directory.CreateDirectory(_path + "/etc");
        File.CreateSymbolicLink(_path + "/abs", "/etc");
        File.CreateSymbolicLink(_path + "/up", "../../../../etc");
        _root.MakeDirectory("/abs/made1").Dispose();
        _root.MakeDirectory("/up/made2").Dispose();
        _root.MakeFile("/abs/sub/file").Dispose();
        Assert.True(Directory.Exists(_path + "/etc/made1"));
        Assert.True(Directory.Exists(_path + "/etc/made2"));
        Assert.True(File.Exists(_path + "/etc/sub/file"));
        Assert.False(Directory.Exists("/etc/made1"));
    }

    [Fact]
    public void Parents_of_the_root_are_the_root()
    {
        _root.MakeDirectory("/../../made").Dispose();
        Assert.True(Directory.Exists(_path + "/made"));
    }

    [Fact]
    public void A_file_in_the_way_is_an_error()
    {
        File.WriteAllText(_path + "/file", "");
        Assert.Throws<LinuxException>(() => _root.MakeDirectory("/file/x"));
        Assert.Null(_root.TryOpen("/file/x"));
        Assert.Null(_root.TryOpen("/nothing"));
    }

    [Fact]
    public void A_dangling_link_is_no_way_out()
    {
        File.CreateSymbolicLink(_path + "/dangling", "/nonesuch-in-root");
        File.CreateSymbolicLink(_path + "/circle", "circle");
        _root.MakeDirectory("/dangling/x").Dispose();
        Assert.True(Directory.Exists(_path + "/nonesuch-in-root/x"));
        Assert.Throws<LinuxException>(() => _root.MakeDirectory("/circle/x"));
        File.CreateSymbolicLink(_path + "/dangling-file", "/another-nonesuch");
        _root.MakeFile("/dangling-file").Dispose();
        Assert.True(File.Exists(_path + "/another-nonesuch"));
        Assert.Throws<LinuxException>(() => _root.MakeFile("/circle"));
        Assert.False(Directory.Exists("/nonesuch-in-root"));
        Assert.False(File.Exists("/another-nonesuch"));
    }

    [Fact]
    public void A_tree_is_copied_with_modes_and_links()
    {
        string from = _path + "/from", to = _path + "/to";
        Directory.CreateDirectory(from + "/sub");
        Directory.CreateDirectory(to);
        File.WriteAllText(from + "/sub/file", "text");
        File.SetUnixFileMode(from + "/sub/file", UnixFileMode.UserRead | UnixFileMode.OtherRead);
        File.CreateSymbolicLink(from + "/link", "/anywhere");
        using (SafeFd a = _root.Open("/from"), b = _root.Open("/to"))
        {
            TreeCopy.Copy(a, b);
        }

        Assert.Equal("text", File.ReadAllText(to + "/sub/file"));
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.OtherRead, File.GetUnixFileMode(to + "/sub/file"));
        Assert.Equal("/anywhere", new FileInfo(to + "/link").LinkTarget);
    }
}
