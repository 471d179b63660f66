using MicroVm.Agent.Containers;
using MicroVm.Agent.Rootfs;
using MicroVm.Linux;
using MicroVm.Protocol.Agent;
using Xunit;

namespace MicroVm.Agent.Tests;

/// <summary>Hooks of the container's namespaces, run by the agent's own code.</summary>
public class HookTests
{
    [SkippableFact]
    public void Create_hooks_run_in_the_containers_namespaces_before_its_root_is_in_place()
    {
        using ContainerFixture f = ContainerFixture.Create();
        ContainerSpec spec = ContainerFixture.Spec("cat /state /seen");
        spec.Hostname = "hooked";
        Hook hook = HostHook(f, "cat > state; hostname > seen; readlink /proc/self/cwd >> seen; ls -d /proc >> seen; echo $A >> seen; id -u >> seen", "A=b");
        spec.CreateContainerHooks.Add(hook);
        (string output, int status) = f.Run(spec);
        string[] lines = output.Split('\n');
        Assert.Equal(0, status);
        Assert.Equal("""{"pid":1,"x":"y"}hooked""", lines[0]);
        Assert.EndsWith("/staging", lines[1], StringComparison.Ordinal);
        Assert.Equal(["/proc", "b", "0"], lines[2..5]);
    }

    [SkippableFact]
    public void Create_hooks_run_as_root_of_the_user_namespace()
    {
        using ContainerFixture f = ContainerFixture.Create();
        ContainerSpec spec = ContainerFixture.Spec("cat /seen; stat -c '%u %g' /seen /made /made/by");
        Map(spec, 100_000);
        ChangeOwner(f.RootPath, 100_000);
        spec.Process.Cwd = "/made/by";
        spec.CreateContainerHooks.Add(HostHook(f, "id -u > seen; id -g >> seen"));
        (string output, _) = f.Run(spec);
        Assert.Equal("0\n0\n0 0\n0 0\n0 0\n", output);
    }

    [SkippableFact]
    public void Start_hooks_run_in_the_containers_root_with_its_rights_and_state()
    {
        using ContainerFixture f = ContainerFixture.Create();
        ContainerSpec spec = ContainerFixture.Spec("cat /tmp/state /tmp/seen");
        ContainerFixture.Add(spec, "tmpfs", "/tmp", 0, "mode=1777");
        spec.Process.User = new User { Uid = 77, Gid = 78 };
        spec.Process.NoNewPrivileges = true;
        spec.Process.SeccompFilter = Google.Protobuf.ByteString.CopyFrom(6, 0, 0, 0, 0, 0, 0xff, 0x7f);
        spec.StartContainerHooks.Add(Hook("/bin/sh", "/bin/cat > /tmp/state; PATH=/bin; id -u > /tmp/seen; pwd >> /tmp/seen; grep -e NoNew -e Seccomp: /proc/self/status >> /tmp/seen"));
        spec.StartContainerHooks.Add(Hook("/bin/sh", "echo $1$B >> /tmp/seen", "B=second"));
        spec.StartContainerHooks[1].Args.AddRange(["name", "the "]);
        ContainerProcess init = f.CreateContainer(spec, out SafeFd stdin, out SafeFd stdout);
        f.RunStartHooks(init);
        (string output, int status) = f.Finish(init, start: true, stdin, stdout, null);
        Assert.Equal(0, status);
        Assert.Equal("""{"pid":1,"x":"y"}77""" + "\n/\nNoNewPrivs:\t1\nSeccomp:\t2\nthe second\n", output);
    }

    [SkippableTheory]
    [InlineData("echo out; echo why >&2; exit 3", "error running hook: exit status 3, stdout: out\n, stderr: why\n")]
    [InlineData("kill -9 $$", "error running hook: signal: killed, stdout: , stderr: ")]
    [InlineData("sleep 1000", "hook ran past specified timeout of 1.0s")]
    public void A_hook_that_fails_undoes_the_container_in_runcs_words(string script, string expected)
    {
        using ContainerFixture f = ContainerFixture.Create();
        ContainerSpec spec = ContainerFixture.Spec("true");
        Hook hook = HostHook(f, script);
        hook.TimeoutSeconds = script.StartsWith("sleep", StringComparison.Ordinal) ? 1u : 0;
        spec.CreateContainerHooks.Add(HostHook(f, "true"));
        spec.CreateContainerHooks.Add(hook);
        SetupException e = Assert.Throws<SetupException>(() => f.CreateContainer(spec, out _, out _));
        Assert.Equal("error running createContainer hook #1: " + expected, e.Message);
    }

    [SkippableFact]
    public void A_hook_that_cannot_be_run_is_told()
    {
        using ContainerFixture f = ContainerFixture.Create();
        ContainerSpec spec = ContainerFixture.Spec("true");
        spec.StartContainerHooks.Add(Hook("/no/such/hook", ""));
        ContainerProcess init = f.CreateContainer(spec, out SafeFd stdin, out SafeFd stdout);
        Assert.Equal(
            "error running startContainer hook #0: fork/exec /no/such/hook: no such file or directory",
            Assert.Throws<SetupException>(() => f.RunStartHooks(init)).Message);
        stdin.Dispose();
        stdout.Dispose();
    }

    internal static void Map(ContainerSpec spec, uint first)
    {
        spec.Namespaces.Add(new Namespace { Kind = Namespace.Types.Kind.User });
        spec.UidMappings.Add(new IdMapping { ContainerId = 0, HostId = first, Size = 65536 });
        spec.GidMappings.Add(new IdMapping { ContainerId = 0, HostId = first, Size = 65536 });
        const ulong all = (1UL << 41) - 1;
        spec.Process.Capabilities = new Capabilities { Bounding = all, Effective = all, Permitted = all };
    }

    /// <summary>As an engine makes an image's files the container root's.</summary>
    internal static unsafe void ChangeOwner(string directory, uint owner)
    {
        foreach (string path in Directory.EnumerateFileSystemEntries(directory, "*", SearchOption.AllDirectories).Prepend(directory))
        {
            fixed (byte* p = System.Text.Encoding.UTF8.GetBytes(path + '\0'))
            {
                Check.Result(Linux.Native.Libc.fchownat(Linux.Native.Libc.AT_FDCWD, p, owner, owner, Linux.Native.Libc.AT_SYMLINK_NOFOLLOW), "chown", path);
            }
        }
    }

    // The host's program is busybox, which is static.
    private static Hook HostHook(ContainerFixture f, string script, params string[] env)
    {
        File.Copy("/bin/busybox", f.SharePath + "/hook", overwrite: true);
        Hook hook = Hook("/host/hook", script, env);
        hook.FsTag = "share";
        hook.FsPath = "hook";
        return hook;
    }

    private static Hook Hook(string path, string script, params string[] env)
    {
        Hook hook = new() { Path = path, StateBeforePid = "{\"pid\":", StateAfterPid = ",\"x\":\"y\"}" };
        hook.Args.AddRange(["sh", "-c", script]);
        hook.Env.AddRange(env);
        return hook;
    }
}
