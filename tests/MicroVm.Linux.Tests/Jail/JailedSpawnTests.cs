using System.Text;
using MicroVm.Linux.Jail;
using MicroVm.Linux.Native;
using Xunit;

namespace MicroVm.Linux.Tests.Jail;

/// <summary>What a program in the jail is (asked of /proc from outside) and what it can do (asked of a static shell within).</summary>
public sealed class JailedSpawnTests : IDisposable
{
    private const string Shell = "/bin/busybox";
    private static readonly string[] Namespaces = ["user", "mnt", "net", "pid", "ipc", "uts"];
    private readonly string _folder = Directory.CreateTempSubdirectory("microvm-jail-").FullName;
    private readonly string _root;

    public JailedSpawnTests() => _root = Directory.CreateDirectory(Path.Combine(_folder, "root")).FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [SkippableFact]
    public void It_sees_its_root_and_nothing_else()
    {
        SkipUnlessPossible();
        File.WriteAllText(Path.Combine(_root, "only"), "");
        string output = Run("echo /*; cd /; cd ../..; echo *; echo made 2>/dev/null >/made && echo written; [ -e /etc/passwd ] || [ -e /proc/self ] || echo alone; echo pid $$; kill -0 2 || :");
        Assert.StartsWith("/only\nonly\nalone\npid 1\n", output, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void Its_namespaces_capabilities_and_descriptors_are_its_own()
    {
        SkipUnlessPossible();
        (SafeFd read, SafeFd write) = Pipe.Create();
        using SafeFd stdin = read, end = write, shell = Open(Shell, Libc.O_RDONLY), unrelated = Open("/etc/passwd", Libc.O_RDONLY);
        JailedSpawn spawn = Jail(shell, "read line; exit 3", [Libc.CAP_CHOWN, Libc.CAP_SETUID]);
        spawn.Add(stdin);
        spawn.Add(end);
        spawn.Add(end);
        Assert.Equal(3, spawn.AddProcSelfFd());
        using SpawnedProcess child = spawn.Start();
        string proc = $"/proc/{child.Pid}";
        string[] status = File.ReadAllLines($"{proc}/status");
        Assert.Contains("CapBnd:\t0000000000000081", status);
        Assert.Contains("CapEff:\t0000000000000081", status);
        Assert.Contains("NoNewPrivs:\t1", status);
        Assert.Contains("SigBlk:\t0000000000000000", status);
        Assert.Contains(status, l => l.StartsWith("Groups:", StringComparison.Ordinal) && l.Trim() == "Groups:");
        foreach (string ns in Namespaces)
        {
            Assert.NotEqual(File.ResolveLinkTarget($"/proc/self/ns/{ns}", false)!.Name, File.ResolveLinkTarget($"{proc}/ns/{ns}", false)!.Name);
        }

        string mount = Assert.Single(File.ReadAllLines($"{proc}/mountinfo"));
        Assert.Contains(" / ro,nosuid,nodev,noexec", mount, StringComparison.Ordinal);
        Assert.Equal(["0", "1", "2", "3"], Directory.GetFileSystemEntries($"{proc}/fd").Select(f => Path.GetFileName(f)).Order());
        Assert.Equal(["0", "1", "2", "3"], Directory.GetFileSystemEntries($"{proc}/fd/3/").Select(f => Path.GetFileName(f)).Order());
        Assert.Contains("0          0 4294967295", File.ReadAllText($"{proc}/uid_map"), StringComparison.Ordinal);
        HostFile.WriteAll(end, "\n"u8, "pipe");
        Assert.Equal(new ExitStatus(3, 0), child.Wait(TimeSpan.FromSeconds(30)));
    }

    [SkippableFact]
    public void It_runs_as_its_own_user_who_has_the_capabilities_and_ends_with_its_parent()
    {
        SkipUnlessPossible();
        (SafeFd read, SafeFd write) = Pipe.Create();
        using SafeFd stdin = read, end = write, shell = Open(Shell, Libc.O_RDONLY);
        JailedSpawn spawn = Jail(shell, "read line", [Libc.CAP_CHOWN, Libc.CAP_SETFCAP], user: 0x7000_0001);
        spawn.Add(stdin);
        int dumpable = Libc.prctl(Libc.PR_GET_DUMPABLE, 0, 0, 0, 0);
        SpawnedProcess child = null!;
        Thread starter = new(() => child = spawn.Start());
        starter.Start();
        starter.Join();
        using SpawnedProcess started = child;

        // The parent of the child is the thread that started it.
        Assert.Equal(new ExitStatus(0, Libc.SIGKILL), child.Wait(TimeSpan.FromSeconds(30)));
        Assert.Equal(dumpable, Libc.prctl(Libc.PR_GET_DUMPABLE, 0, 0, 0, 0));

        using SpawnedProcess other = spawn.Start();
        string[] status = File.ReadAllLines($"/proc/{other.Pid}/status");
        Assert.Contains("Uid:\t1879048193\t1879048193\t1879048193\t1879048193", status);
        Assert.Contains("Gid:\t1879048193\t1879048193\t1879048193\t1879048193", status);
        foreach (string set in (string[])["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"])
        {
            Assert.Contains($"{set}:\t0000000080000001", status);
        }

        _ = other.Kill();
    }

    [SkippableFact]
    public void It_becomes_no_user_but_its_own_and_those_that_are_listed()
    {
        SkipUnlessPossible();
        (SafeFd read, SafeFd write) = Pipe.Create();
        using SafeFd stdin = read, end = write, shell = Open(Shell, Libc.O_RDONLY);
        List<string> maps = [], users = [];
        for (int i = 0; i < 2; i++)
        {
            JailedSpawn spawn = new()
            {
                Program = shell,
                Name = Shell,
                Arguments = ["sh", "-c", "read line"],
                Root = _root,
                User = 0x7000_0000,
                UniqueUser = true,
                Users = [new IdRange(100_000, 65_536), new IdRange(165_536, 10)],
                Groups = [new IdRange(200_000, 1)],
                Threads = 17,
                PrivateBytes = 64 << 20,
            };
            spawn.Add(stdin);
            using SpawnedProcess child = spawn.Start();
            string proc = $"/proc/{child.Pid}";
            string user = File.ReadAllLines($"{proc}/status").Single(l => l.StartsWith("Uid:", StringComparison.Ordinal)).Split('\t')[1];
            Assert.InRange(uint.Parse(user, System.Globalization.CultureInfo.InvariantCulture), 0x7000_0000u, 0x7fff_ffffu);
            Assert.Equal($"100000 100000 65546,{user} {user} 1", Map($"{proc}/uid_map"));
            Assert.Equal($"200000 200000 1,{user} {user} 1", Map($"{proc}/gid_map"));
            string[] limits = File.ReadAllLines($"{proc}/limits");
            Assert.Contains(limits, l => l.StartsWith("Max processes             17  ", StringComparison.Ordinal));
            Assert.Contains(limits, l => l.StartsWith("Max data size             67108864  ", StringComparison.Ordinal));
            users.Add(user);
            _ = child.Kill();
        }

        static string Map(string path) => string.Join(',', File.ReadAllLines(path).Select(l => string.Join(' ', l.Split(' ', StringSplitOptions.RemoveEmptyEntries))));
    }

    // A shell whose children fork, until one may not any more.
    [SkippableFact]
    public void It_has_no_more_threads_than_it_is_given()
    {
        SkipUnlessPossible();
        (SafeFd read, SafeFd write) = Pipe.Create();
        using SafeFd output = read, end = write, shell = Open(Shell, Libc.O_RDONLY), nothing = Open("/dev/null", Libc.O_RDWR);
        JailedSpawn spawn = new()
        {
            Program = shell,
            Name = Shell,
            Root = _root,
            User = 0x7000_0000,
            UniqueUser = true,
            Threads = 8,
            Arguments = ["sh", "-c", "f() { echo $1; [ $1 = 20 ] || (f $(($1 + 1))); :; }; f 1"],
        };
        spawn.Add(nothing);
        spawn.Add(end);
        spawn.Add(nothing);
        using SpawnedProcess child = spawn.Start();
        end.Dispose();
        Assert.NotNull(child.Wait(TimeSpan.FromSeconds(30)));
        Assert.Equal("1\n2\n3\n4\n5\n6\n7\n8\n", Encoding.ASCII.GetString(HostFile.ReadToEnd(output, 4096, "pipe")));
    }

    [Theory]
    [InlineData("0+4294967295", "0 0 4294967295")]
    [InlineData("", "7 7 1")]
    [InlineData("0+7,8+5", "0 0 13")]
    [InlineData("100+10,105+10,20+1", "7 7 1,20 20 1,100 100 15")]
    [InlineData("4294967290+100", "7 7 1,4294967290 4294967290 5")]
    [InlineData("4294967295+1,5+0", "7 7 1")]
    public void Ranges_of_ids_become_a_map(string ranges, string map)
    {
        IEnumerable<IdRange> parsed = ranges.Split(',', StringSplitOptions.RemoveEmptyEntries).Select(r => r.Split('+').Select(uint.Parse).ToArray()).Select(r => new IdRange(r[0], r[1]));
        Assert.Equal(map, IdRange.ToMap(parsed, 7).Trim('\n').Replace('\n', ','));
        Assert.Throws<ArgumentException>(() => IdRange.ToMap(Enumerable.Range(0, 400).Select(i => new IdRange((uint)i * 2, 1)), 7));
    }

    [SkippableFact]
    public void Nothing_above_a_detached_mount_is_reached()
    {
        SkipUnlessPossible();
        string exported = Directory.CreateDirectory(Path.Combine(_folder, "exported")).FullName;
        File.WriteAllText(Path.Combine(exported, "inside"), "");
        using SafeFd folder = Open(exported, Libc.O_PATH), clone = DetachedMount.Clone(folder, readOnly: true, exported);
        Assert.Equal(Errno.OK, TryOpen(clone, "inside", Libc.O_RDONLY));
        Assert.Equal(Errno.OK, TryOpen(folder, "../root", Libc.O_PATH));
        Assert.Equal(Errno.ENOENT, TryOpen(clone, "../root", Libc.O_PATH));
        Assert.Equal(Errno.ENOENT, TryOpen(clone, "../../../../etc/passwd", Libc.O_PATH));
        Assert.Equal(Errno.EROFS, TryOpen(clone, "new", Libc.O_CREAT | Libc.O_WRONLY));
        Assert.DoesNotContain(File.ReadAllLines("/proc/self/mountinfo"), l => l.Contains(exported, StringComparison.Ordinal));
    }

    [SkippableFact]
    public void A_root_that_is_not_there_is_named()
    {
        SkipUnlessPossible();
        Directory.Delete(_root);
        using SafeFd shell = Open(Shell, Libc.O_RDONLY);
        LinuxException e = Assert.Throws<LinuxException>(() => Jail(shell, "exit 0", []).Start());
        Assert.Equal(Errno.ENOENT, e.Errno);
        Assert.Contains($"root directory {_root}", e.Message, StringComparison.Ordinal);
    }

    private static void SkipUnlessPossible()
    {
        Skip.IfNot(Libc.geteuid() == 0, "not root: the jail was NOT tested");
        Skip.IfNot(File.Exists(Shell), "busybox-static is not installed: the jail was NOT tested");
    }

    private static Errno TryOpen(SafeFd folder, string name, int flags)
    {
        int fd = Libc.openat(folder.Value, name, flags | Libc.O_CLOEXEC, 0x180);
        Errno errno = fd < 0 ? Check.LastErrno : Errno.OK;
        new SafeFd(fd).Dispose();
        return errno;
    }

    private static SafeFd Open(string path, int flags) => SafeFd.From(Libc.open(path, flags | Libc.O_CLOEXEC, 0), "open", path);

    private JailedSpawn Jail(SafeFd shell, string script, IReadOnlyList<int> capabilities, uint user = 0) => new()
    {
        Program = shell,
        Name = "shell",
        Arguments = ["sh", "-c", script],
        Root = _root,
        Capabilities = capabilities,
        User = user,
    };

    private string Run(string script)
    {
        using SafeFd shell = Open(Shell, Libc.O_RDONLY), nothing = Open("/dev/null", Libc.O_RDWR), output = MemoryFile.Create("out", []);
        JailedSpawn spawn = Jail(shell, script, []);
        spawn.Add(nothing);
        spawn.Add(output);
        spawn.Add(nothing);
        using SpawnedProcess child = spawn.Start();
        Assert.Equal(new ExitStatus(0, 0), child.Wait(TimeSpan.FromSeconds(30)));
        return Encoding.UTF8.GetString(File.ReadAllBytes($"/proc/self/fd/{output.Value}"));
    }
}
