using System.Diagnostics;
using MicroVm.EndToEnd.Support;
using MicroVm.Linux.Native;

namespace MicroVm.EndToEnd;

/// <summary>Any of our processes may be killed at any time: `delete --force` then leaves nothing.</summary>
public sealed class DeathTests
{
    private static readonly int[] DelaysOfCreate = [0, 30, 100, 200, 400, 700];
    private static readonly int[] DelaysOfStart = [0, 5, 20, 60];

    /// <summary>Whose death is tried.</summary>
    public enum Victim
    {
        /// <summary>The command.</summary>
        Command,

        /// <summary>The process that stands for the container.</summary>
        Proxy,

        /// <summary>The VMM.</summary>
        Vmm,
    }

    [SkippableTheory]
    [InlineData(Victim.Command)]
    [InlineData(Victim.Proxy)]
    [InlineData(Victim.Vmm)]
    public void KilledWhileItIsCreated(Victim victim)
    {
        Installation.RequireKvm();
        foreach (int delay in DelaysOfCreate)
        {
            using Bundle bundle = Bundle.Create("sleep 1000");
            using DetachedContainer c = new(bundle);
            string cgroup = Prepare(bundle);
            Process create = c.Begin("create-out", "create", "--bundle", bundle.Path, "--pid-file", c["pid"], c.Id);
            Kill(victim, create, c, delay);
            DetachedContainer.End(create);
            if (create.ExitCode is 1)
            {
                // Told once, and nothing is left even without a deletion.
                Assert.Single(File.ReadAllText(c["create-out.err"]).Split('\n', StringSplitOptions.RemoveEmptyEntries));
                Assert.False(File.Exists(c["pid"]));
                NothingIsLeft(c, cgroup);
            }

            c.Call("delete", "--force").EnsureSuccess();
            NothingIsLeft(c, cgroup);
        }
    }

    [SkippableTheory]
    [InlineData(Victim.Command)]
    [InlineData(Victim.Proxy)]
    [InlineData(Victim.Vmm)]
    public void KilledWhileItIsStarted(Victim victim)
    {
        Installation.RequireKvm();
        foreach (int delay in DelaysOfStart)
        {
            using Bundle bundle = Bundle.Create("sleep 1000");
            using DetachedContainer c = new(bundle);
            string cgroup = Prepare(bundle);
            Assert.Equal(0, c.Create().ExitCode);
            Process start = c.Begin("start-out", "start", c.Id);
            Kill(victim, start, c, delay);
            DetachedContainer.End(start);
            c.Call("delete", "--force").EnsureSuccess();
            NothingIsLeft(c, cgroup);
        }
    }

    [SkippableFact]
    public void AProcessEndsWithItsExecInTheForeground()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("sleep 1000");
        using DetachedContainer c = new(bundle);
        string cgroup = Prepare(bundle);
        Assert.Equal(0, c.Create().ExitCode);
        c.Call("start").EnsureSuccess();
        Process exec = c.Begin("exec-out", "exec", c.Id, "sh", "-c", "echo ready; exec sleep 4321");
        DetachedContainer.Eventually(() => File.Exists(c["exec-out"]) && File.ReadAllText(c["exec-out"]).Contains("ready", StringComparison.Ordinal), "no output");
        exec.Kill();
        DetachedContainer.End(exec);
        DetachedContainer.Eventually(
            () => !c.Raw("exec", c.Id, "ps").EnsureSuccess().StandardOutput.Contains("4321", StringComparison.Ordinal), "the process outlives its command");

        // One that is detached, and its container's VMM dies.
        c.Leave("exec", "-d", "--pid-file", c["exec-pid"], c.Id, "sleep", "1000").EnsureSuccess();
        int sleeper = int.Parse(File.ReadAllText(c["exec-pid"]), System.Globalization.CultureInfo.InvariantCulture);
        _ = Libc.kill(c.Vmm, Libc.SIGKILL);
        Assert.Equal(137, DetachedContainer.Reap(sleeper));
        Assert.Equal(137, DetachedContainer.Reap(c.Pid));
        c.Call("delete").EnsureSuccess();
        NothingIsLeft(c, cgroup);
    }

    private static string Prepare(Bundle bundle)
    {
        string cgroup = $"/microvm-e2e/{Guid.NewGuid():N}";
        bundle.Linux["cgroupsPath"] = cgroup;
        bundle.Save();
        return cgroup;
    }

    private static void Kill(Victim victim, Process command, DetachedContainer c, int milliseconds)
    {
        Thread.Sleep(milliseconds);
        int[] proxies = Proxies(c);
        int[] pids = victim switch
        {
            Victim.Command => [command.Id],
            Victim.Proxy => proxies,
            _ => [.. proxies.SelectMany(ProcessTree.Descendants).Where(p => ProcessTree.Name(p) == "microvm-vmm")],
        };
        Array.ForEach(pids, p => _ = Libc.kill(p, Libc.SIGKILL));
    }

    private static int[] Proxies(DetachedContainer c) => [.. Directory.EnumerateDirectories("/proc")
        .Select(d => int.TryParse(Path.GetFileName(d), out int pid) ? pid : 0)
        .Where(p => p > 0 && ProcessTree.StandsFor(p, c.Id))];

    private static void NothingIsLeft(DetachedContainer c, string cgroup)
    {
        DetachedContainer.Eventually(() => !Proxies(c).Any(ProcessTree.IsAlive), "a proxy process is left");
        Assert.Empty(DetachedContainer.CgroupFolders(cgroup));
        if (Directory.Exists(c.Root))
        {
            Assert.Empty(Directory.EnumerateFileSystemEntries(c.Root));
        }

        Assert.DoesNotContain(File.ReadLines("/proc/mounts"), l => l.Contains(c.Folder, StringComparison.Ordinal) || l.Contains(c.Bundle.Path, StringComparison.Ordinal));
    }
}
