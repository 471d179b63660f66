using System.Globalization;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>A VM has the memory that its containers may use: it grows with their limits, and shrinks again.</summary>
public sealed class MemoryGrowthTests
{
    private const int MiB = 1 << 20;

    [SkippableFact]
    public void ALimitAboveTheVmMakesItGrowAndALowerOneShrink()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("sleep 1000");
        bundle.Linux["resources"]!["memory"] = new System.Text.Json.Nodes.JsonObject { ["limit"] = 64L * MiB };
        bundle.AddMount("/scratch", "tmpfs", "tmpfs", "size=400m");
        using DetachedContainer c = new(bundle);
        Assert.Equal(0, c.Create().ExitCode);
        c.Call("start").EnsureSuccess();
        int booted = MemTotal(c);
        Assert.InRange(booted, 64, 128);

        CommandResult update = c.Call("update", "--memory", $"{450 * MiB}").EnsureSuccess();
        Assert.Equal("", update.StandardError);
        Assert.InRange(MemTotal(c) - booted, 380, 400);
        Assert.Equal($"{450 * MiB}", Exec(c, "cat", "/sys/fs/cgroup/memory.max"));

        // More than it had before, and the host's limit has room for it.
        Exec(c, "dd", "if=/dev/zero", "of=/scratch/file", "bs=1M", "count=160");
        Exec(c, "rm", "/scratch/file");

        c.Call("update", "--memory", $"{64 * MiB}").EnsureSuccess();
        DetachedContainer.Eventually(() => MemTotal(c) < booted + 64, "the VM shrinks to what its container needs");
        c.Call("update", "--memory", $"{200 * MiB}").EnsureSuccess();
        Assert.InRange(MemTotal(c) - booted, 130, 200);
    }

    [SkippableFact]
    public void AContainerThatJoinsBringsItsMemory()
    {
        Installation.RequireKvm();
        using Bundle firstBundle = Bundle.Create("sleep 1000"), secondBundle = Bundle.Create("sleep 1000");
        firstBundle.Linux["resources"]!["memory"] = new System.Text.Json.Nodes.JsonObject { ["limit"] = 64L * MiB };
        secondBundle.Linux["resources"]!["memory"] = new System.Text.Json.Nodes.JsonObject { ["limit"] = 300L * MiB };
        using DetachedContainer first = new(firstBundle);
        Assert.Equal(0, first.Create().ExitCode);
        first.Call("start").EnsureSuccess();
        int booted = MemTotal(first);
        using (DetachedContainer second = new(secondBundle, first.Root))
        {
            secondBundle.Linux["namespaces"]!.AsArray().Single(n => (string?)n!["type"] == "network")!["path"] = $"/proc/{first.Pid}/ns/net";
            Assert.Equal(0, second.Create().ExitCode);
            second.Call("start").EnsureSuccess();
            Assert.Equal(first.Vmm, second.Vmm);
            Assert.InRange(MemTotal(second) - booted, 280, 310);
            second.Raw("kill", second.Id, "KILL").EnsureSuccess();
            Assert.Equal(137, DetachedContainer.Reap(second.Pid));
            second.Call("delete").EnsureSuccess();
        }

        DetachedContainer.Eventually(() => MemTotal(first) < booted + 64, "the VM shrinks when the container has left");
    }

    private static int MemTotal(DetachedContainer c) =>
        int.Parse(Exec(c, "grep", "MemTotal", "/proc/meminfo").Split(' ', StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture) >> 10;

    private static string Exec(DetachedContainer c, params string[] command) =>
        Shell.Run(Installation.Runtime, ["--root", c.Root, "exec", c.Id, .. command]).EnsureSuccess().StandardOutput.Trim();
}
