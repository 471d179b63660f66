using System.Globalization;
using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.EndToEnd;

/// <summary>The commands of an OCI runtime, one after the other as callers of runc make them. Few containers, many looks.</summary>
public sealed class LifecycleTests
{
    [SkippableFact]
    public void CreateStartExecPauseUpdateKillDelete()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("echo hello; echo oops >&2; trap 'echo got it; exit 7' TERM; echo ready; while :; do sleep 0.2; done");
        string cgroup = $"/microvm-e2e/{Guid.NewGuid():N}";
        bundle.Linux["cgroupsPath"] = cgroup;
        using DetachedContainer c = new(bundle);
        bundle.Config["hooks"] = new JsonObject
        {
            ["prestart"] = Hook($"cat >{c["prestart"]}"),
            ["createRuntime"] = Hook($"cat >{c["createRuntime"]}"),
            ["poststart"] = Hook($"cat >{c["poststart"]}"),
            ["poststop"] = Hook($"cat >{c["poststop"]}"),
        };
        CommandResult create = c.Create();
        Assert.True(create.ExitCode == 0, create + File.ReadAllText(c["log"]));
        Created(c, cgroup);

        c.Call("start").EnsureSuccess();
        Assert.Contains("cannot start an already running container", c.Call("start").StandardError, StringComparison.Ordinal);
        c.WaitForOutput("ready");
        Assert.Equal("running", c.Status);
        Assert.Equal(c.Pid, JsonNode.Parse(File.ReadAllText(c["poststart"]))!["pid"]!.GetValue<int>());
        Assert.Contains("that is not stopped: running", c.Call("delete").StandardError, StringComparison.Ordinal);
        Executed(c);
        Paused(c);
        Assert.Equal("stats", JsonNode.Parse(c.Call("events", "--stats").EnsureSuccess().StandardOutput)!["type"]!.GetValue<string>());
        c.Call("update", "--pids-limit", "50").EnsureSuccess();
        Assert.Equal("50", JsonNode.Parse(c.Call("events", "--stats").StandardOutput)!["data"]!["pids"]!["limit"]!.ToString());

        c.Raw("kill", c.Id, "TERM").EnsureSuccess();
        Assert.Equal(7, DetachedContainer.Reap(c.Pid));
        Assert.Equal("hello\nready\ngot it\n", c.Output);
        Assert.Equal("oops\n", File.ReadAllText(c["err"]));
        Stopped(c, cgroup);
    }

    /// <summary>What is found in the root, but refused by execve itself: a program of another machine, a script whose interpreter is missing.</summary>
    [SkippableTheory]
    [InlineData("/foreign", "no program", "exec /foreign: exec format error")]
    [InlineData("/script", "#!/no/such/interpreter", "exec /script: no such file or directory")]
    public void AProcessThatExecveRefusesSaysSoItselfAndExitsWithOne(string path, string content, string message)
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("");
        bundle.Process["args"] = new JsonArray(path);
        string file = bundle.Rootfs + path;
        File.WriteAllText(file, content + "\n");
        File.SetUnixFileMode(file, (UnixFileMode)0b111_101_101);
        using (DetachedContainer c = new(bundle))
        {
            Assert.Equal(0, c.Create().ExitCode);
            c.Call("start").EnsureSuccess();
            Assert.Equal(1, DetachedContainer.Reap(c.Pid));
            Assert.Equal(message + "\n", File.ReadAllText(c["err"]));
            Assert.Equal("stopped", c.Status);
        }

        bundle.Process["args"] = new JsonArray("sleep", "1000");
        using DetachedContainer running = new(bundle);
        Assert.Equal(0, running.Create().ExitCode);
        running.Call("start").EnsureSuccess();
        CommandResult exec = running.Raw("exec", running.Id, path);
        Assert.Equal((1, "", message + "\n"), (exec.ExitCode, exec.StandardOutput, exec.StandardError));
        Assert.Equal(126, running.Raw("exec", running.Id, "sh", "-c", "/bin").ExitCode);
        Assert.Equal("running", running.Status);
    }

    [SkippableFact]
    public void AFailingHookUndoesEverything()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("echo must not run");
        string cgroup = $"/microvm-e2e/{Guid.NewGuid():N}";
        bundle.Linux["cgroupsPath"] = cgroup;
        using DetachedContainer c = new(bundle);
        bundle.Config["hooks"] = new JsonObject { ["createRuntime"] = Hook("echo no >&2; exit 3"), ["poststop"] = Hook($"cat >{c["poststop"]}") };
        CommandResult create = c.Create();
        Assert.Equal(1, create.ExitCode);
        Assert.Contains("hook #0: error running hook: exit status 3, stdout: , stderr: no\n", create.StandardError, StringComparison.Ordinal);
        Assert.Equal("stopped", JsonNode.Parse(File.ReadAllText(c["poststop"]))!["status"]!.GetValue<string>());
        Assert.False(File.Exists(c["pid"]));
        Assert.Contains("hook #0", JsonNode.Parse(File.ReadLines(c["log"]).Last())!["msg"]!.GetValue<string>(), StringComparison.Ordinal);
        Assert.Contains("does not exist", c.Call("state").StandardError, StringComparison.Ordinal);
        Assert.Empty(Directory.EnumerateFileSystemEntries(c.Root));
        Assert.Empty(DetachedContainer.CgroupFolders(cgroup));
    }

    [SkippableFact]
    public void AFailingPoststartHookEndsTheContainer()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("echo ran; while :; do sleep 0.2; done");
        using DetachedContainer c = new(bundle);
        bundle.Config["hooks"] = new JsonObject
        {
            ["poststart"] = new JsonArray(Hook("cat >/dev/null; echo out; echo why >&2; exit 3")[0]!.DeepClone(), Hook($"touch {c["second"]}")[0]!.DeepClone()),
            ["poststop"] = Hook($"cat >{c["poststop"]}"),
        };
        bundle.Save();
        CommandResult run = c.Raw("run", "--detach", "--bundle", bundle.Path, c.Id);
        Assert.Equal(1, run.ExitCode);
        Assert.Contains("hook #0", run.StandardError, StringComparison.Ordinal);
        Assert.Contains(": error running hook: exit status 3, stdout: out\\n, stderr: why\\n", run.StandardError, StringComparison.Ordinal);
        Assert.Equal("stopped", JsonNode.Parse(File.ReadAllText(c["poststop"]))!["status"]!.GetValue<string>());
        Assert.False(File.Exists(c["second"]));
        Assert.Contains("does not exist", c.Call("state").StandardError, StringComparison.Ordinal);
        if (!Installation.IsMicroVm)
        {
            // runc 1.1 runs these hooks in `create`.
            return;
        }

        c.Create().EnsureSuccess();
        CommandResult start = c.Call("start");
        Assert.Equal(1, start.ExitCode);
        Assert.Contains("error running poststart hook #0", start.StandardError, StringComparison.Ordinal);
        Assert.Equal("stopped", c.Status);
        Assert.Equal(137, DetachedContainer.Reap(c.Pid));
        c.Call("delete").EnsureSuccess();
    }

    [SkippableFact]
    public void KillingAnyProcessStopsTheContainerAndDeleteCleansUp()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("sleep 1000");
        using DetachedContainer c = new(bundle);
        foreach (bool vmm in (bool[])[true, false])
        {
            Assert.True(c.Create().ExitCode == 0);
            int pid = c.Pid, other = c.Vmm;
            _ = Libc.kill(vmm ? other : pid, Libc.SIGKILL);
            Assert.Equal(137, DetachedContainer.Reap(pid));
            DetachedContainer.Eventually(() => !ProcessTree.IsAlive(other), "the VMM outlives its container");
            Assert.Equal("stopped", c.Status);
            Assert.Contains("container with given ID already exists", c.Create().StandardError, StringComparison.Ordinal);
            c.Call("delete", "--force").EnsureSuccess();
            Assert.Empty(Directory.EnumerateFileSystemEntries(c.Root));
        }
    }

    private static JsonArray Hook(string script) => [new JsonObject
    {
        ["path"] = "/bin/sh", ["args"] = new JsonArray("sh", "-c", script), ["env"] = new JsonArray("PATH=/usr/bin:/bin"),
    }];

    private static void Created(DetachedContainer c, string cgroup)
    {
        JsonObject state = JsonNode.Parse(c.Call("state").EnsureSuccess().StandardOutput)!.AsObject();
        Assert.Equal(["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"], state.Select(p => p.Key));
        Assert.Equal(("created", c.Pid), (state["status"]!.GetValue<string>(), state["pid"]!.GetValue<int>()));
        Assert.Equal(c.Bundle.Rootfs, state["rootfs"]!.GetValue<string>());
        JsonNode listed = JsonNode.Parse(c.Raw("list", "--format=json").StandardOutput)![0]!;
        Assert.Equal(("root", c.Id), (listed["owner"]!.GetValue<string>(), listed["id"]!.GetValue<string>()));
        Assert.Equal(c.Id + "\n", c.Raw("list", "-q").StandardOutput);
        Assert.Contains("container with given ID already exists", c.Raw("create", "--bundle", c.Bundle.Path, c.Id).StandardError, StringComparison.Ordinal);
        foreach (string hook in (string[])["prestart", "createRuntime"])
        {
            Assert.Equal(c.Pid, JsonNode.Parse(File.ReadAllText(c[hook]))!["pid"]!.GetValue<int>());
        }

        // What callers read of the pid is the container's: its cgroup, its network.
        Assert.Contains(File.ReadLines($"/proc/{c.Pid}/cgroup"), l => l.EndsWith(":" + cgroup, StringComparison.Ordinal));
        Assert.NotEqual(File.ResolveLinkTarget("/proc/self/ns/net", false)!.Name, File.ResolveLinkTarget($"/proc/{c.Pid}/ns/net", false)!.Name);
        Assert.Equal("", c.Output);
        if (Installation.IsMicroVm)
        {
            foreach (int vmm in (int[])[c.Vmm, c.Sandbox])
            {
                Assert.Contains(File.ReadLines($"/proc/{vmm}/cgroup"), l => l.EndsWith(":" + cgroup, StringComparison.Ordinal));
                Assert.True(vmm == c.Sandbox || !new DirectoryInfo($"/proc/{vmm}/fd").EnumerateFiles().Any(f => f.LinkTarget == c["out"] || f.LinkTarget == c["err"]));
            }
        }
    }

    private static void Executed(DetachedContainer c)
    {
        CommandResult exec = c.Raw("exec", "--cwd", "/tmp", "-e", "FOO=bar", "--user=1000:1000", c.Id, "sh", "-c", "pwd; echo $FOO; id -u; echo err >&2; exit 9");
        Assert.Equal((9, "/tmp\nbar\n1000\n", "err\n"), (exec.ExitCode, exec.StandardOutput, exec.StandardError));
        Assert.Equal(137, c.Raw("exec", c.Id, "sh", "-c", "kill -9 $$").ExitCode);
        CommandResult missing = c.Raw("exec", c.Id, "no-such-program");
        Assert.Equal(255, missing.ExitCode);
        Assert.Contains("executable file not found in $PATH", missing.StandardError, StringComparison.Ordinal);

        File.WriteAllText(c["process"], """{"args":["sh","-c","exit 4"],"cwd":"/","env":["PATH=/bin"],"user":{"uid":0,"gid":0}}""");
        c.Leave("exec", "--process", c["process"], "--detach", "--pid-file", c["exec-pid"], c.Id).EnsureSuccess();
        Assert.Equal(4, DetachedContainer.Reap(int.Parse(File.ReadAllText(c["exec-pid"]), CultureInfo.InvariantCulture)));

        c.Leave("exec", "-d", "--pid-file", c["exec-pid"], c.Id, "sleep", "1000").EnsureSuccess();
        int sleeper = int.Parse(File.ReadAllText(c["exec-pid"]), CultureInfo.InvariantCulture);
        int[] pids = JsonNode.Parse(c.Call("ps", "--format", "json").EnsureSuccess().StandardOutput)!.AsArray().Select(p => p!.GetValue<int>()).ToArray();
        Assert.Contains(c.Pid, pids);
        Assert.Contains(sleeper, pids);
        Assert.Contains($" {sleeper} ", c.Call("ps").StandardOutput, StringComparison.Ordinal);
        _ = Libc.kill(sleeper, Libc.SIGTERM);
        Assert.Equal(143, DetachedContainer.Reap(sleeper));
        Console(c);
    }

    private static void Console(DetachedContainer c)
    {
        using SafeFd listener = UnixSocket.Listen(c["console"]);
        c.Leave("exec", "-d", "-t", "--console-socket", c["console"], "--pid-file", c["exec-pid"], c.Id, "sh", "-c", "read line; tty; echo got $line; exit 5").EnsureSuccess();
        using SafeFd connection = UnixSocket.Accept(listener)!;
        List<SafeFd> fds = [];
        byte[] name = new byte[4096];
        Assert.True(FdReceiver.Receive(connection, name, fds, out _) > 0);
        using SafeFd master = Assert.Single(fds);
        using FileStream terminal = new(new Microsoft.Win32.SafeHandles.SafeFileHandle(master.Value, false), FileAccess.ReadWrite, 0);
        terminal.Write("typed\n"u8);
        string text = "";
        byte[] buffer = new byte[1024];
        while (!text.Contains("got typed", StringComparison.Ordinal))
        {
            text += System.Text.Encoding.UTF8.GetString(buffer, 0, terminal.Read(buffer));
        }

        Assert.Contains("/dev/pts/", text, StringComparison.Ordinal);
        Assert.Equal(5, DetachedContainer.Reap(int.Parse(File.ReadAllText(c["exec-pid"]), CultureInfo.InvariantCulture)));
    }

    private static void Paused(DetachedContainer c)
    {
        c.Call("pause").EnsureSuccess();
        Assert.Equal("paused", c.Status);
        CommandResult exec = c.Raw("exec", c.Id, "true");
        Assert.Equal(255, exec.ExitCode);
        Assert.Contains("paused container", exec.StandardError, StringComparison.Ordinal);
        c.Call("resume").EnsureSuccess();
        Assert.Equal("running", c.Status);
        Assert.Contains("container not paused", c.Call("resume").StandardError, StringComparison.Ordinal);
    }

    private static void Stopped(DetachedContainer c, string cgroup)
    {
        JsonNode state = JsonNode.Parse(c.Call("state").StandardOutput)!;
        Assert.Equal(("stopped", 0), (state["status"]!.GetValue<string>(), state["pid"]!.GetValue<int>()));
        Assert.Contains("container not running", c.Call("kill").StandardError, StringComparison.Ordinal);
        CommandResult exec = c.Raw("exec", c.Id, "true");
        Assert.Equal(255, exec.ExitCode);
        Assert.Contains("cannot exec in a stopped container", exec.StandardError, StringComparison.Ordinal);
        c.Call("delete").EnsureSuccess();
        Assert.Equal("stopped", JsonNode.Parse(File.ReadAllText(c["poststop"]))!["status"]!.GetValue<string>());
        Assert.Contains("does not exist", c.Call("state").StandardError, StringComparison.Ordinal);
        Assert.Contains("does not exist", c.Call("delete").StandardError, StringComparison.Ordinal);
        c.Call("delete", "--force").EnsureSuccess();
        Assert.Empty(Directory.EnumerateFileSystemEntries(c.Root));
        Assert.Empty(DetachedContainer.CgroupFolders(cgroup));
    }
}
