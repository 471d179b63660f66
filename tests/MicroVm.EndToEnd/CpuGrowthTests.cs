using System.Globalization;
using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>A VM has the vCPUs that its containers may use: they come on line with larger quotas, and go off line with smaller ones.</summary>
public sealed class CpuGrowthTests : IDisposable
{
    private const string Period = "100000", OneCpu = "100000", TwoCpus = "200000";

    // futex(2) of asm/unistd_64.h.
    private const string Futex = "202 ";
    private readonly string _templates = Directory.CreateTempSubdirectory("microvm-templates-").FullName;

    public void Dispose() => Directory.Delete(_templates, recursive: true);

    [SkippableFact]
    public void AQuotaAboveTheVmBringsCpusOnLineAndALowerOneTakesThemOff()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("sleep 1000");
        using DetachedContainer c = new(bundle) { GlobalFlags = "--max-vcpus 2" };
        Assert.Equal(0, c.Create().ExitCode);
        c.Call("start").EnsureSuccess();
        Assert.Equal(("1", "0"), (Exec(c, "nproc"), Exec(c, "cat", "/sys/devices/system/cpu/online")));

        Grow(c);
        RunOnBoth(c);
        c.Call("pause").EnsureSuccess();
        Assert.Equal("paused", c.Status);
        c.Call("resume").EnsureSuccess();
        Assert.Equal("2", Exec(c, "nproc"));

        // The thread of the second vCPU does not run the guest any more.
        Quota(c, OneCpu);
        DetachedContainer.Eventually(() => Exec(c, "nproc") == "1", "the second CPU goes off line");
        DetachedContainer.Eventually(() => CallOf(c.Vmm, "vcpu1").StartsWith(Futex, StringComparison.Ordinal), "its thread stands still");

        Grow(c);
        RunOnBoth(c);
        c.Raw("kill", c.Id, "KILL").EnsureSuccess();
        Assert.Equal(137, DetachedContainer.Reap(c.Pid));
    }

    [SkippableFact]
    public void AContainerThatJoinsBringsItsCpus()
    {
        Installation.RequireKvm();
        using Bundle firstBundle = Bundle.Create("sleep 1000"), secondBundle = Bundle.Create("sleep 1000");
        secondBundle.Linux["resources"]!["cpu"] = new JsonObject { ["quota"] = 200_000, ["period"] = 100_000 };
        using DetachedContainer first = new(firstBundle) { GlobalFlags = "--max-vcpus 2" };
        Assert.Equal(0, first.Create().ExitCode);
        first.Call("start").EnsureSuccess();
        Assert.Equal("1", Exec(first, "nproc"));
        using (DetachedContainer second = new(secondBundle, first.Root))
        {
            secondBundle.Linux["namespaces"]!.AsArray().Single(n => (string?)n!["type"] == "network")!["path"] = $"/proc/{first.Pid}/ns/net";
            Assert.Equal(0, second.Create().ExitCode);
            second.Call("start").EnsureSuccess();
            Assert.Equal(first.Vmm, second.Vmm);
            DetachedContainer.Eventually(() => Exec(second, "nproc") == "2", "the container that joins has its CPUs");
            DetachedContainer.Eventually(() => Exec(first, "nproc") == "2", "the other container has them as well");
            second.Raw("kill", second.Id, "KILL").EnsureSuccess();
            Assert.Equal(137, DetachedContainer.Reap(second.Pid));
            second.Call("delete").EnsureSuccess();
        }

        DetachedContainer.Eventually(() => Exec(first, "nproc") == "1", "the CPU goes off line when the container has left");
    }

    [SkippableFact]
    public void AVmFromATemplateGrowsAsWell()
    {
        Installation.RequireKvm();
        Shell.Run("env", Templates, Installation.Runtime, "--max-vcpus", "2", "template", "create", "--vm-memory", "128").EnsureSuccess();
        using Bundle bundle = Bundle.Create("sleep 1000");
        using DetachedContainer c = new(bundle) { GlobalFlags = "--max-vcpus 2 --template --vm-memory 128 --debug", Environment = Templates };
        Assert.Equal(0, c.Create().ExitCode);
        Assert.Contains("the VM starts from template", File.ReadAllText(c["log"]), StringComparison.Ordinal);
        c.Call("start").EnsureSuccess();
        Assert.Equal("1", Exec(c, "nproc"));
        Grow(c);
        RunOnBoth(c);
        Quota(c, OneCpu);
        DetachedContainer.Eventually(() => Exec(c, "nproc") == "1", "the second CPU goes off line");
    }

    [SkippableFact]
    public void AVmThatKeepsItsCpusSaysSo()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("sleep 1000");
        using DetachedContainer c = new(bundle) { GlobalFlags = "--max-vcpus 1" };
        Assert.Equal(0, c.Create().ExitCode);
        c.Call("start").EnsureSuccess();
        CommandResult update = c.Call("update", "--cpu-period", Period, "--cpu-quota", TwoCpus).EnsureSuccess();
        Assert.Contains("the CPU quota is above the 1 vCPUs of the VM, which were set when the container was created", update.StandardError, StringComparison.Ordinal);
        Assert.Equal("1", Exec(c, "nproc"));
    }

    private string Templates => $"MICROVM_TEMPLATES={_templates}";

    private static void Grow(DetachedContainer c)
    {
        Assert.Equal("", Quota(c, TwoCpus).StandardError);
        DetachedContainer.Eventually(() => Exec(c, "nproc") == "2", "the second CPU comes on line");
        Assert.Equal("0-1", Exec(c, "cat", "/sys/devices/system/cpu/online"));
    }

    private static CommandResult Quota(DetachedContainer c, string quota) => c.Call("update", "--cpu-period", Period, "--cpu-quota", quota).EnsureSuccess();

    /// <summary>Two processes that never wait use the second CPU as well: user time of it goes on.</summary>
    private static void RunOnBoth(DetachedContainer c)
    {
        long before = UserTicks(c);
        Exec(c, "sh", "-c", "for i in 1 2; do (while :; do :; done) </dev/null >/dev/null 2>&1 & echo $! >>/tmp/busy; done");
        DetachedContainer.Eventually(() => UserTicks(c) > before + 10, "the second CPU runs");
        Exec(c, "sh", "-c", "kill $(cat /tmp/busy); rm /tmp/busy");
    }

    private static long UserTicks(DetachedContainer c) => Exec(c, "cat", "/proc/stat").Split('\n').SingleOrDefault(l => l.StartsWith("cpu1 ", StringComparison.Ordinal)) is { } line
        ? long.Parse(line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture)
        : 0;

    /// <summary>The system call that a thread of a process is in (proc(5), /proc/pid/syscall).</summary>
    private static string CallOf(int process, string thread) => File.ReadAllText(
        Directory.GetDirectories($"/proc/{process}/task").Single(t => File.ReadAllText(t + "/comm").Trim() == thread) + "/syscall");

    private static string Exec(DetachedContainer c, params string[] command) =>
        Shell.Run(Installation.Runtime, ["--root", c.Root, "exec", c.Id, .. command]).EnsureSuccess().StandardOutput.Trim();
}
