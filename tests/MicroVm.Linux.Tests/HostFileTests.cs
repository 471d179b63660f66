using MicroVm.Linux.Native;
using Xunit;

namespace MicroVm.Linux.Tests;

/// <summary>Files whose names others may have prepared.</summary>
public sealed class HostFileTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("microvm-files-").FullName;

    private string this[string name] => Path.Combine(_folder, name);

    [Fact]
    public void ReplacingFollowsNoLink()
    {
        File.WriteAllText(this["victim"], "precious");
        File.CreateSymbolicLink(this[".p"], this["victim"]);
        File.CreateSymbolicLink(this["p"], this["victim"]);
        HostFile.Replace(this["p"], "1"u8, 0b110_100_100);
        Assert.Equal(("precious", "1"), (File.ReadAllText(this["victim"]), File.ReadAllText(this["p"])));
        Assert.Null(new FileInfo(this["p"]).LinkTarget);
        Assert.False(Path.Exists(this[".p"]));
    }

    [Fact]
    public void WhatACrashLeftIsReplaced()
    {
        File.WriteAllText(this[".p"], "left");
        HostFile.Replace(this["p"], "1"u8, 0b110_100_100);
        Assert.Equal(["p"], Directory.GetFileSystemEntries(_folder).Select(Path.GetFileName));
        Directory.CreateDirectory(this[".q"]);
        Assert.Equal(Errno.EEXIST, Assert.Throws<LinuxException>(() => HostFile.Replace(this["q"], "1"u8, 0b110_100_100)).Errno);
        Assert.False(File.Exists(this["q"]));
    }

    [Fact]
    public void OnlyRegularFilesAreOpened()
    {
        using (System.Diagnostics.Process mkfifo = System.Diagnostics.Process.Start("mkfifo", this["fifo"]))
        {
            mkfifo.WaitForExit();
        }

        File.WriteAllText(this["file"], "text");
        File.CreateSymbolicLink(this["link"], "file");
        Assert.Equal(Errno.EINVAL, Assert.Throws<LinuxException>(() => RegularFile.Open(this["fifo"])).Errno);
        Assert.Equal(Errno.EINVAL, Assert.Throws<LinuxException>(() => RegularFile.Open("/dev/null")).Errno);
        Assert.Equal(Errno.ENOENT, Assert.Throws<LinuxException>(() => RegularFile.Open(this["none"])).Errno);
        using SafeFd file = RegularFile.Open(this["link"]);
        Assert.Equal("text"u8.ToArray(), HostFile.ReadToEnd(file, 10, "file"));
        Assert.Null(RegularFile.TryOpenIn(_folder, "fifo\0"u8));
        Assert.Null(RegularFile.TryOpenIn(this["none"], "file\0"u8));
        using SafeFd? inside = RegularFile.TryOpenIn(_folder, "/../../link\0"u8);
        Assert.Equal("text"u8.ToArray(), HostFile.ReadToEnd(inside!, 10, "file"));
    }

    [Fact]
    public void ACopyInMemoryIsOpenForReadingOnly()
    {
        byte[] data = new byte[(300 << 10) + 1];
        Random.Shared.NextBytes(data);
        File.WriteAllBytes(this["file"], data);
        using SafeFd source = RegularFile.Open(this["file"]);
        using SafeFd copy = MemoryFile.CopyOf(source, "copy");
        Assert.Equal(data, HostFile.ReadToEnd(copy, 1 << 20, "copy"));
        Assert.Equal(Errno.EBADF, Assert.Throws<LinuxException>(() => HostFile.WriteAll(copy, "x"u8, "copy")).Errno);
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);
}
