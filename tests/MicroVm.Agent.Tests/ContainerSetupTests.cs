using System.Security.Cryptography;
using MicroVm.Agent.Containers;
using MicroVm.Agent.Rootfs;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using Xunit;

namespace MicroVm.Agent.Tests;

public class ContainerSetupTests
{
    [SkippableFact]
    public void A_container_sees_its_own_processes_name_and_root()
    {
        using ContainerFixture f = ContainerFixture.Create();
        (string output, int status) = f.Run(ContainerFixture.Spec("echo pid $$; hostname; ls /; ps | wc -l; readlink /dev/fd; echo x > /dev/null; exit 7"));
        string[] lines = output.Split('\n');
        Assert.Equal(7 << 8, status);
        Assert.Equal(["pid 1", "inside", "bin", "dev", "etc", "proc"], lines[..6]);
        Assert.Contains("/proc/self/fd", lines);
    }

    [SkippableFact]
    public void Masked_and_read_only_paths_and_root_hold()
    {
        using ContainerFixture f = ContainerFixture.Create();
        ContainerSpec spec = ContainerFixture.Spec(
            "cat /proc/kcore | wc -c; ls /etc | wc -l; touch /proc/sys/kernel/hostname 2>&1; echo x > /file || echo refused; echo in > /dev/shm-ok && echo written");
        File.WriteAllText(f.RootPath + "/etc/secret", "");
        spec.MaskedPaths.AddRange(["/proc/kcore", "/etc", "/nonesuch"]);
        spec.ReadonlyPaths.AddRange(["/proc/sys", "/nonesuch"]);
        spec.Root.ReadOnly = true;
        (string output, _) = f.Run(spec);
        string[] lines = output.Split('\n');
        Assert.Equal(["0", "0"], lines[..2]);
        Assert.Contains("Read-only file system", lines[2], StringComparison.Ordinal);
        Assert.Contains("refused", lines);
        Assert.Contains("written", lines);
        Assert.False(File.Exists(f.RootPath + "/file"));
    }

    [SkippableFact]
    public void Mounts_are_made_in_order_with_their_options_and_places()
    {
        using ContainerFixture f = ContainerFixture.Create();
        string name = $"agent{Guid.NewGuid():N}";
        Directory.CreateDirectory(f.RootPath + "/../vol");
        File.WriteAllText(f.RootPath + "/../vol/a", "volume\n");
        Directory.CreateDirectory(f.RootPath + "/seed/sub");
        File.SetUnixFileMode(f.RootPath + "/seed", (UnixFileMode)0b111_101_000);
        File.WriteAllText(f.RootPath + "/seed/sub/s", "seeded\n");
        File.CreateSymbolicLink(f.RootPath + "/escape", "/../../../../../../tmp");
        ContainerSpec spec = ContainerFixture.Spec(
            $"cat /data/a; echo x > /data/a || echo ro; cat /etc/one; cat /seed/sub/s; stat -c %a /seed /escape/{name} /fresh; grep -c ' /tmp/{name} ' /proc/mounts; cat /proc/sys/net/ipv4/ip_forward");
        spec.Mounts.Add(new Mount { Kind = Mount.Types.Kind.Export, FsTag = "share", Source = "vol", Destination = "/data", Flags = Libc.MS_BIND | Libc.MS_RDONLY });
        spec.Mounts.Add(new Mount { Kind = Mount.Types.Kind.Export, FsTag = "share", Source = "vol/a", Destination = "/etc/one", Flags = Libc.MS_BIND, SourceIsFile = true });
        ContainerFixture.Add(spec, "tmpfs", "/seed", 0, "").Tmpcopyup = true;
        ContainerFixture.Add(spec, "tmpfs", "/escape/" + name, 0, "size=64k,mode=700");
        ContainerFixture.Add(spec, "tmpfs", "/fresh", 0, "size=64k");
        spec.Sysctls.Add(new Sysctl { Path = "net/ipv4/ip_forward", Value = "1" });
        (string output, _) = f.Run(spec);
        Assert.Equal("volume\nro\nvolume\nseeded\n750\n700\n1777\n1\n1\n", string.Join('\n', output.Split('\n').Where(l => !l.Contains("sh:", StringComparison.Ordinal))));
        Assert.False(Directory.Exists("/tmp/" + name));
    }

    [SkippableFact]
    public void A_link_in_place_of_proc_is_refused()
    {
        using ContainerFixture f = ContainerFixture.Create();
        File.CreateSymbolicLink(f.RootPath + "/proc", "/etc");
        SetupException e = Assert.Throws<SetupException>(() => f.CreateContainer(ContainerFixture.Spec("true"), out _, out _));
        Assert.Equal("filesystem \"proc\" must be mounted on ordinary directory", e.Message);
    }

    [SkippableFact]
    public void Input_comes_out_again_unchanged()
    {
        using ContainerFixture f = ContainerFixture.Create();
        byte[] bytes = new byte[3 << 20];
        new Random(7).NextBytes(bytes);
        for (int i = 0; i < bytes.Length; i++)
        {
            bytes[i] &= 0x7f;
        }

        (string output, int status) = f.Run(ContainerFixture.Spec("exec cat"), bytes);
        Assert.Equal(0, status);
        Assert.Equal(SHA256.HashData(bytes), SHA256.HashData(System.Text.Encoding.ASCII.GetBytes(output)));
    }

    [SkippableFact]
    public void A_terminal_is_the_containers_own()
    {
        using ContainerFixture f = ContainerFixture.Create();
        ContainerSpec spec = ContainerFixture.Spec("tty; stty size; head -n 1; test -c /dev/console && echo console; echo x > /dev/tty; exit 3", terminal: true);
        (string output, int status) = f.Run(spec, "typed\n"u8.ToArray());
        Assert.Equal(3 << 8, status);
        Assert.Contains("/dev/pts/0\r\n", output, StringComparison.Ordinal);
        Assert.Contains("33 99\r\n", output, StringComparison.Ordinal);
        Assert.Contains("typed\r\n", output, StringComparison.Ordinal);
        Assert.Contains("console\r\n", output, StringComparison.Ordinal);
        Assert.Contains("x\r\n", output, StringComparison.Ordinal);
    }

    [SkippableTheory]
    [InlineData("nonesuch", "exec: \"nonesuch\": executable file not found in $PATH")]
    [InlineData("/nonesuch", "exec: \"/nonesuch\": stat /nonesuch: no such file or directory")]
    [InlineData("/etc/plain", "exec: \"/etc/plain\": permission denied")]
    [InlineData("/etc", "exec: \"/etc\": permission denied")]
    public void A_process_that_cannot_be_found_is_told_in_runcs_words(string name, string expected)
    {
        using ContainerFixture f = ContainerFixture.Create();
        File.WriteAllText(f.RootPath + "/etc/plain", "");
        ContainerSpec spec = ContainerFixture.Spec("");
        spec.Process.Args.Clear();
        spec.Process.Args.Add(name);
        Assert.Equal(expected, Assert.Throws<SetupException>(() => f.CreateContainer(spec, out _, out _)).Message);
    }

    [SkippableFact]
    public void A_missing_working_directory_is_made_and_devices_are_as_asked()
    {
        using ContainerFixture f = ContainerFixture.Create();
        ContainerSpec spec = ContainerFixture.Spec("pwd; stat -c '%F %t:%T %a %u' /dev/fuse0 /dev/null");
        spec.Process.Cwd = "/made/here";
        spec.Devices.Add(new Device { Path = "/dev/fuse0", Type = 'c', Major = 10, Minor = 229, Mode = 0x180, Uid = 5 });
        (string output, _) = f.Run(spec);
        Assert.Equal("/made/here\ncharacter special file a:e5 600 5\ncharacter special file 1:3 666 0\n", output);
    }

    [SkippableFact]
    public void A_user_namespace_maps_root_and_owns_the_other_namespaces()
    {
        using ContainerFixture f = ContainerFixture.Create();
        ContainerSpec spec = ContainerFixture.Spec("id -u; cat /proc/self/uid_map; hostname changed && hostname; cat /proc/1/comm; true");
        spec.Namespaces.Add(new Namespace { Kind = Namespace.Types.Kind.User });
        spec.UidMappings.Add(new IdMapping { ContainerId = 0, HostId = 0, Size = 1000 });
        spec.GidMappings.Add(new IdMapping { ContainerId = 0, HostId = 0, Size = 1000 });
        ulong all = (1UL << 41) - 1;
        spec.Process.Capabilities = new Capabilities { Bounding = all, Effective = all, Permitted = all };
        (string output, int status) = f.Run(spec);
        string[] lines = output.Split('\n');
        Assert.Equal("0", lines[0]);
        Assert.Equal(["0", "0", "1000"], lines[1].Split(' ', StringSplitOptions.RemoveEmptyEntries));
        Assert.Equal("changed", lines[2]);
        Assert.Equal("sh", lines[3]);
        Assert.Equal(0, status);
    }

    [SkippableFact]
    public void What_is_made_for_a_user_namespace_belongs_to_its_root()
    {
        using ContainerFixture f = ContainerFixture.Create();
        ContainerSpec spec = ContainerFixture.Spec("for i in /dev /dev/null /dev/fd /dev/pts /run /run/x /work /proc/self/fd/1; do stat -c '%n %u' $i; done; echo x > /run/x && touch /dev/y /work/z && cat /run/x; cat /proc/self/uid_map; grep 'open files' /proc/self/limits");
        HookTests.Map(spec, 200_000);
        spec.Process.Rlimits.Add(new Rlimit { Resource = Libc.RLIMIT_NOFILE, Soft = 333, Hard = 444 });
        HookTests.ChangeOwner(f.RootPath, 200_000);
        spec.Process.Cwd = "/work";
        Directory.CreateDirectory(f.RootPath + "/run");
        File.WriteAllText(f.RootPath + "/run/x", "");
        HookTests.ChangeOwner(f.RootPath + "/run", 200_000);
        ContainerFixture.Add(spec, "tmpfs", "/run", 0, "mode=755").Tmpcopyup = true;
        (string output, int status) = f.Run(spec);
        string[] lines = output.Split('\n');
        Assert.Equal(["/dev 0", "/dev/null 0", "/dev/fd 0"], lines[..3]);
        Assert.Equal(["/run 0", "/run/x 0", "/work 0"], lines[4..7]);
        Assert.Equal("x", lines[8]);
        Assert.Matches("333 +444", lines[10]);
        Assert.Equal(["0", "200000", "65536"], lines[9].Split(' ', StringSplitOptions.RemoveEmptyEntries));
        Assert.Equal(0, status);
    }

    [SkippableFact]
    public void A_time_namespace_has_its_offset()
    {
        using ContainerFixture f = ContainerFixture.Create();
        ContainerSpec spec = ContainerFixture.Spec("cat /proc/uptime");
        spec.Namespaces.Add(new Namespace { Kind = Namespace.Types.Kind.Time });
        spec.TimeOffsets.Add(new TimeOffset { Clock = "boottime", Seconds = 1_000_000 });
        (string output, _) = f.Run(spec);
        Assert.True(double.Parse(output.Split(' ')[0], System.Globalization.CultureInfo.InvariantCulture) >= 1_000_000, output);
    }

    [SkippableFact]
    public void Another_process_joins_the_container()
    {
        using ContainerFixture f = ContainerFixture.Create();
        ContainerProcess init = f.CreateContainer(Cat(), out SafeFd stdin, out SafeFd stdout);
        init.Child!.Go();
        Assert.Null(init.Child.TakeReport());
        Process process = ContainerFixture.Spec("hostname; cat /proc/1/comm; id -u; grep Cpus_allowed_list /proc/self/status; exit 9").Process;
        process.User = new User { Uid = 77, Gid = 77 };
        process.CpuAffinity = Google.Protobuf.ByteString.CopyFrom(1, 0, 0, 0, 0, 0, 0, 0);
        (string output, int status) = f.Exec(init.Container, process);
        Assert.Equal("inside\ncat\n77\nCpus_allowed_list:\t0\n", output);
        Assert.Equal(9 << 8, status);
        Process terminal = ContainerFixture.Spec("tty", terminal: true).Process;
        Assert.Equal("/dev/pts/0\r\n", f.Exec(init.Container, terminal).Output);
        (_, status) = f.Finish(init, start: false, stdin, stdout, "bye"u8.ToArray());
        Assert.Equal(0, status);
    }

    [SkippableFact]
    public void A_container_joins_namespaces_of_another()
    {
        using ContainerFixture f = ContainerFixture.Create();
        ContainerSpec first = Cat();
        first.Namespaces.Add(new Namespace { Kind = Namespace.Types.Kind.Cgroup });
        ContainerProcess init = f.CreateContainer(first, out SafeFd stdin, out SafeFd stdout);
        init.Child!.Go();
        Assert.Null(init.Child.TakeReport());
        ContainerSpec second = ContainerFixture.Spec("hostname; cat /proc/1/comm; readlink /proc/self/ns/net; readlink /proc/self/ns/cgroup");
        second.Hostname = "";
        List<(int, SafeFd)> joins = [];
        second.Namespaces.Add(new Namespace { Kind = Namespace.Types.Kind.Cgroup });
        foreach (Namespace ns in second.Namespaces.Where(n => n.Kind != Namespace.Types.Kind.Mount))
        {
            ns.JoinContainerId = "first";
            joins.Add((NamespaceFlags.Of(ns.Kind), init.Child.PidFd!));
        }

        ContainerProcess joined = f.CreateContainer(second, out SafeFd in2, out SafeFd out2, joins, init.Container.Proc!.Share());
        (string output, int status) = f.Finish(joined, start: true, in2, out2, null);
        string proc = $"/proc/{init.Child.Pid}/ns/";
        Assert.Equal(
            $"inside\ncat\n{new FileInfo(proc + "net").LinkTarget}\n{new FileInfo(proc + "cgroup").LinkTarget}\n", output);
        Assert.Equal(0, status);

        // Options would be the other container's, too.
        ContainerSpec third = ContainerFixture.Spec("true");
        third.Hostname = "";
        third.Mounts[0].Data = "hidepid=2";
        third.Namespaces.Single(n => n.Kind == Namespace.Types.Kind.Pid).JoinContainerId = "first";
        SetupException e = Assert.Throws<SetupException>(
            () => f.CreateContainer(third, out _, out _, [(Libc.CLONE_NEWPID, init.Child.PidFd!)], init.Container.Proc!.Share()));
        Assert.Contains("(hidepid=2) is not supported", e.Message, StringComparison.Ordinal);
        f.Finish(init, start: false, stdin, stdout, null);
    }

    [SkippableFact]
    public void Another_process_joins_user_and_time_namespaces()
    {
        using ContainerFixture f = ContainerFixture.Create();
        ContainerSpec spec = Cat();
        foreach (Namespace.Types.Kind kind in (ReadOnlySpan<Namespace.Types.Kind>)[Namespace.Types.Kind.User, Namespace.Types.Kind.Time, Namespace.Types.Kind.Cgroup])
        {
            spec.Namespaces.Add(new Namespace { Kind = kind });
        }

        spec.UidMappings.Add(new IdMapping { ContainerId = 0, HostId = 0, Size = 1000 });
        spec.GidMappings.Add(new IdMapping { ContainerId = 0, HostId = 0, Size = 1000 });
        ContainerProcess init = f.CreateContainer(spec, out SafeFd stdin, out SafeFd stdout);
        init.Child!.Go();
        Assert.Null(init.Child.TakeReport());
        (string output, _) = f.Exec(init.Container, ContainerFixture.Spec("readlink /proc/self/ns/user; readlink /proc/self/ns/time; readlink /proc/self/ns/cgroup").Process);
        string proc = $"/proc/{init.Child.Pid}/ns/";
        Assert.Equal(string.Concat(new[] { "user", "time", "cgroup" }.Select(n => new FileInfo(proc + n).LinkTarget + "\n")), output);
        f.Finish(init, start: false, stdin, stdout, null);
    }

    private static ContainerSpec Cat()
    {
        ContainerSpec spec = ContainerFixture.Spec("");
        spec.Process.Args.Clear();
        spec.Process.Args.Add("cat");
        return spec;
    }
}
