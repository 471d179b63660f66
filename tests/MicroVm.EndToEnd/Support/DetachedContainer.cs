using System.Diagnostics;
using System.Globalization;
using MicroVm.Linux.Native;

namespace MicroVm.EndToEnd.Support;

/// <summary>
/// A container as its callers drive it: `create` and what follows, each a process of its own. This process is the subreaper to
/// which the container's processes come, as conmon and containerd's shim are.
/// </summary>
internal sealed class DetachedContainer : IDisposable
{
    private const int PR_SET_CHILD_SUBREAPER = 36;

    /// <param name="bundle">Its bundle.</param>
    /// <param name="root">Folder of states, where it is another container's, too.</param>
    public DetachedContainer(Bundle bundle, string? root = null)
    {
        Bundle = bundle;
        Id = $"e2e-{System.Environment.ProcessId}-{Guid.NewGuid():N}"[..24];
        Folder = Directory.CreateTempSubdirectory("microvm-detached-").FullName;
        Root = root ?? Path.Combine(Folder, "root");
        Libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    }

    public Bundle Bundle { get; }

    public string Id { get; }

    /// <summary>For the test's files; the state is in a folder of it.</summary>
    public string Folder { get; }

    public string Root { get; }

    /// <summary>Flags before the command, for `create`.</summary>
    public string GlobalFlags { get; init; } = "";

    /// <summary>A variable of the environment of `create`, as env(1) takes it.</summary>
    public string Environment { get; init; } = "";

    public string this[string name] => Path.Combine(Folder, name);

    /// <summary>The id in the pid file.</summary>
    public int Pid => int.Parse(File.ReadAllText(this["pid"]), CultureInfo.InvariantCulture);

    /// <summary>The VMM of the container's VM.</summary>
    public int Vmm => ProcessOf("vmm");

    /// <summary>The process that owns the container's VM.</summary>
    public int Sandbox => ProcessOf("sandbox");

    public string Output => File.ReadAllText(this["out"]);

    /// <summary>`create` with files for standard streams: the container keeps them open.</summary>
    public CommandResult Create(params string[] flags)
    {
        Bundle.Save();
        string line = $"exec env {Environment} {Installation.Runtime} {GlobalFlags} --root {Root} --log {this["log"]} --log-format json create --bundle {Bundle.Path} " +
            $"--pid-file {this["pid"]} {string.Join(' ', flags)} {Id} </dev/null >{this["out"]} 2>{this["err"]}";
        CommandResult result = Shell.Run("sh", "-c", line);
        return result with { StandardError = File.ReadAllText(this["err"]) };
    }

    /// <summary>Waits until the output holds <paramref name="text"/>; not beyond the end of the container's process.</summary>
    public void WaitForOutput(string text)
    {
        Stopwatch watch = Stopwatch.StartNew();
        bool ended = false;
        while (!Output.Contains(text, StringComparison.Ordinal))
        {
            Assert.False(ended || watch.Elapsed > Installation.RunDeadline, $"no '{text}' in the output (ended: {ended}): {Output}{File.ReadAllText(this["err"])}");
            Thread.Sleep(20);

            // Asked before the output is read for the last time.
            ended = !ProcessTree.IsAlive(Pid);
        }
    }

    /// <summary>A command with pipes for its streams, which must be closed when it ends: the id comes last.</summary>
    public CommandResult Call(string command, params string[] flags) => Raw([command, .. flags, Id]);

    /// <summary>A command with pipes for its streams.</summary>
    public CommandResult Raw(params string[] arguments) => Shell.Run(Installation.Runtime, ["--root", Root, .. arguments]);

    /// <summary>A command that runs beside the test, whose output goes to the file <paramref name="name"/>.</summary>
    public Process Begin(string name, params string[] arguments) => Process.Start(
        "sh", ["-c", "out=$1; shift; exec \"$@\" </dev/null >$out 2>$out.err", "sh", this[name], Installation.Runtime, "--root", Root, .. arguments]);

    /// <summary>A command that leaves a process behind, which keeps the streams: /dev/null.</summary>
    public CommandResult Leave(params string[] arguments) => Shell.Run(
        "sh", ["-c", "exec \"$@\" </dev/null >/dev/null 2>/dev/null", "sh", Installation.Runtime, "--root", Root, .. arguments]);

    public string Status => System.Text.Json.Nodes.JsonNode.Parse(Call("state").EnsureSuccess().StandardOutput)!["status"]!.GetValue<string>();

    /// <summary>Waits for a child's end; its wait status as shells have it.</summary>
    public static int Reap(int pid)
    {
        Stopwatch watch = Stopwatch.StartNew();
        while (watch.Elapsed < Installation.RunDeadline)
        {
            unsafe
            {
                int status;
                int result = Libc.waitpid(pid, &status, Libc.WNOHANG);
                Assert.True(result >= 0, $"{pid} is no child of the subreaper");
                if (result == pid)
                {
                    return (status & 0x7f) == 0 ? (status >> 8) & 0xff : 128 + (status & 0x7f);
                }
            }

            Thread.Sleep(20);
        }

        throw new TimeoutException($"process {pid} did not end");
    }

    private int ProcessOf(string name) => System.Text.Json.Nodes.JsonNode.Parse(File.ReadAllText(Path.Combine(Root, Id, "state.json")))![name]!["pid"]!.GetValue<int>();

    /// <summary>The exit status of a command from <see cref="Begin"/>.</summary>
    public static int End(Process process)
    {
        Assert.True(process.WaitForExit(Installation.RunDeadline), "a command did not end");
        return process.ExitCode;
    }

    /// <summary>The folders of a cgroup in every hierarchy of the host.</summary>
    public static IEnumerable<string> CgroupFolders(string cgroup) =>
        Directory.EnumerateDirectories("/sys/fs/cgroup").Append("/sys/fs/cgroup").Select(d => d + cgroup).Where(Directory.Exists);

    /// <summary>Waits until <paramref name="condition"/> holds.</summary>
    public static void Eventually(Func<bool> condition, string what)
    {
        Stopwatch watch = Stopwatch.StartNew();
        while (!condition())
        {
            Assert.True(watch.Elapsed < Installation.RunDeadline, what);
            Thread.Sleep(50);
        }
    }

    public void Dispose()
    {
        Call("delete", "--force");
        Directory.Delete(Folder, recursive: true);
    }
}
