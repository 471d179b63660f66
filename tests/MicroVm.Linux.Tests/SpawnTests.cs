using System.Text;
using MicroVm.Linux.Native;
using Xunit;

namespace MicroVm.Linux.Tests;

/// <summary>Starting processes, whole files, pipes and memory files.</summary>
public sealed unsafe class SpawnTests
{
    [Theory]
    [InlineData(3, 0, "exit status 3")]
    [InlineData(0, 9, "signal: killed")]
    [InlineData(0, 31, "signal: bad system call")]
    [InlineData(0, 34, "signal: signal 34")]
    public void AnEndIsToldInGosWords(int status, int signal, string expected) => Assert.Equal(expected, new ExitStatus(status, signal).Reason);

    [Fact]
    public void DescriptorsGetTheirNumbersWhateverTheyWereBefore()
    {
        using SafeFd nothing = Open("/dev/null");
        using SafeFd output = MemoryFile.Create("out", []);
        using SafeFd one = MemoryFile.Create("one", "first"u8), two = MemoryFile.Create("two", "second"u8);
        Spawn spawn = Sh("cat <&3; cat <&4; [ -e /proc/$$/fd/5 ] && echo leaked; exit 6", []);
        spawn.Add(nothing);
        spawn.Add(output);
        spawn.Add(nothing);

        // Sources in the other order than their targets, and low numbers among them.
        Assert.Equal(3, spawn.Add(two));
        Assert.Equal(4, spawn.Add(one));
        using SpawnedProcess child = spawn.Start();
        Assert.Equal(new ExitStatus(6, 0), child.Wait(TimeSpan.FromSeconds(30)));
        Assert.Equal("secondfirst", Text(output));
    }

    [Fact]
    public void EnvironmentFolderAndSessionAreItsOwn()
    {
        using SafeFd nothing = Open("/dev/null");
        using SafeFd output = MemoryFile.Create("out", []);
        Spawn spawn = new()
        {
            File = "/bin/sh",
            Arguments = ["sh", "-c", "pwd; echo $A; echo ${HOME-none}; [ \"$(cut -d' ' -f6 /proc/$$/stat)\" = $$ ] && echo session; umask >/dev/null"],
            Environment = ["A=b c", "PATH=/usr/bin:/bin"],
            WorkingDirectory = "/usr",
            NewSession = true,
        };
        spawn.Add(nothing);
        spawn.Add(output);
        spawn.Add(nothing);
        using SpawnedProcess child = spawn.Start();
        Assert.Equal(new ExitStatus(0, 0), child.Wait(TimeSpan.FromSeconds(30)));
        Assert.Equal("/usr\nb c\nnone\nsession\n", Text(output));
    }

    [Fact]
    public void EndBySignalIsToldAndAskedForTwice()
    {
        using SpawnedProcess child = Started("exec sleep 1000");
        Assert.Null(child.TryWait());
        Assert.Null(child.Wait(TimeSpan.FromMilliseconds(10)));
        Assert.Equal((ExitStatus?)new ExitStatus(0, 9), child.Kill());
        Assert.Equal(new ExitStatus(0, 9), child.TryWait());
        child.Signal(15);
    }

    [SkippableFact]
    public void AProcessThatSigkillDoesNotReachIsWaitedForNoLongerThanSaid()
    {
        using UnansweredFileSystem files = UnansweredFileSystem.Mount();
        using SpawnedProcess child = Started($"exec cat {files.Folder}/name");
        files.TakeLookup();
        Assert.Null(child.Kill(TimeSpan.FromMilliseconds(200)));
        Assert.StartsWith("D", File.ReadAllText($"/proc/{child.Pid}/stat").Split(") ")[1], StringComparison.Ordinal);
        files.End();
        Assert.Equal((ExitStatus?)new ExitStatus(0, 9), child.Kill());
    }

    [Fact]
    public void WhatCannotBeExecutedIsNamed()
    {
        LinuxException e = Assert.Throws<LinuxException>(() => new Spawn { File = "/no/such/program", Arguments = ["x"] }.Start());
        Assert.Equal(Errno.ENOENT, e.Errno);
        Assert.Contains("/no/such/program", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void FilesAreReadWholeAndReplacedWhole()
    {
        string folder = Directory.CreateTempSubdirectory("microvm-linux-").FullName;
        try
        {
            string path = Path.Combine(folder, "file");
            byte[] data = new byte[100_000];
            Random.Shared.NextBytes(data);
            HostFile.Replace(path, data, 0b110_000_000);
            Assert.Equal(data, HostFile.ReadAllBytes(path, data.Length));
            Assert.Equal(Errno.EFBIG, Assert.Throws<LinuxException>(() => HostFile.ReadAllBytes(path, data.Length - 1)).Errno);
            Assert.Equal(Errno.ENOENT, Assert.Throws<LinuxException>(() => HostFile.ReadAllBytes(path + "x", 1)).Errno);
            Assert.Equal(Errno.EISDIR, Assert.Throws<LinuxException>(() => HostFile.ReadAllBytes(folder, 1)).Errno);
            Assert.Equal([path], Directory.EnumerateFileSystemEntries(folder));
            HostFile.MakeFolder(Path.Combine(folder, "a/b/c"), 0b111_000_000);
            HostFile.MakeFolder(Path.Combine(folder, "a/b/c"), 0b111_000_000);
            Assert.Equal(Errno.ENOTDIR, Assert.Throws<LinuxException>(() => HostFile.MakeFolder(Path.Combine(path, "x"), 0b111_000_000)).Errno);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static SpawnedProcess Started(string script)
    {
        using SafeFd nothing = Open("/dev/null");
        Spawn spawn = Sh(script, []);
        spawn.Add(nothing);
        spawn.Add(nothing);
        spawn.Add(nothing);
        return spawn.Start();
    }

    private static Spawn Sh(string script, string[] environment) => new()
    {
        File = "/bin/sh",
        Arguments = ["sh", "-c", script],
        Environment = [.. environment, "PATH=/usr/bin:/bin"],
    };

    private static SafeFd Open(string path) => SafeFd.From(Libc.open(path, Libc.O_RDWR | Libc.O_CLOEXEC, 0), "open", path);

    private static string Text(SafeFd fd)
    {
        byte[] buffer = new byte[4096];
        fixed (byte* p = buffer)
        {
            return Encoding.UTF8.GetString(buffer, 0, (int)Libc.pread(fd.Value, p, 4096, 0));
        }
    }
}
