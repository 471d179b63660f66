using System.Globalization;
using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>What callers do with the container's cgroup on the host: freeze it, limit its parent, weigh its block I/O.</summary>
public sealed class CgroupOfTheHostTests : IDisposable
{
    private readonly string _parent = $"/microvm-e2e-{Guid.NewGuid():N}"[..20];

    /// <summary>Folder of a controller's cgroup: in version 1 the controller's own, in version 2 the only one.</summary>
    private static string Mount(string controller) => Directory.Exists("/sys/fs/cgroup/" + controller) ? "/sys/fs/cgroup/" + controller : "/sys/fs/cgroup";

    private static bool IsUnified => File.Exists("/sys/fs/cgroup/cgroup.controllers");

    public void Dispose()
    {
        foreach (string folder in DetachedContainer.CgroupFolders(_parent))
        {
            foreach (string child in Directory.EnumerateDirectories(folder).Append(folder))
            {
                Shell.Run("rmdir", child);
            }
        }
    }

    [SkippableTheory]
    [InlineData("")]
    [InlineData("/c")]
    public void AFrozenCgroupIsRefusedAtOnce(string below)
    {
        Installation.RequireRuntime();
        Skip.If(below.Length > 0 && !Installation.IsMicroVm, "runc waits for ever below a frozen cgroup");
        string freezer = Mount("freezer") + _parent;
        Directory.CreateDirectory(freezer);
        Freeze(freezer, true);
        try
        {
            using Bundle bundle = Bundle.Create("echo ran");
            bundle.Linux["cgroupsPath"] = _parent + below;
            CommandResult result = Container.Run(bundle);
            Assert.Equal((1, ""), (result.ExitCode, result.StandardOutput));
            Assert.Contains("run failed: container's cgroup unexpectedly frozen", result.StandardError, StringComparison.Ordinal);
        }
        finally
        {
            Freeze(freezer, false);
        }
    }

    [SkippableFact]
    public void ACgroupWithProcessesIsWarnedOf()
    {
        Installation.RequireRuntime();
        string cgroup = Mount("devices") + _parent;
        Directory.CreateDirectory(cgroup);
        using System.Diagnostics.Process stranger = System.Diagnostics.Process.Start("sleep", "1000");
        try
        {
            File.WriteAllText(cgroup + "/cgroup.procs", stranger.Id.ToString(CultureInfo.InvariantCulture));
            using Bundle bundle = Bundle.Create("echo ran");
            bundle.Linux["cgroupsPath"] = _parent;
            CommandResult result = Container.Run(bundle);
            Assert.Equal((0, "ran\n"), (result.ExitCode, result.StandardOutput));
            Assert.Contains("level=warning msg=\"container's cgroup is not empty: 1 process(es) found\"", result.StandardError, StringComparison.Ordinal);
        }
        finally
        {
            stranger.Kill();
            stranger.WaitForExit();
        }
    }

    [SkippableFact]
    public void PeriodAndQuotaAreUpdatedTogetherBelowALimitedParent()
    {
        Installation.RequireRuntime();
        Skip.If(IsUnified, "version 2 has one file for both");
        string parent = Mount("cpu") + _parent;
        Directory.CreateDirectory(parent);
        File.WriteAllText(parent + "/cpu.cfs_quota_us", "50000");
        using Bundle bundle = Bundle.Create("sleep 1000");
        bundle.Linux["cgroupsPath"] = _parent + "/c";
        bundle.Linux["resources"]!["cpu"] = new JsonObject { ["quota"] = 50000, ["period"] = 100000 };
        using DetachedContainer c = new(bundle);
        Assert.Equal(0, c.Create().ExitCode);
        c.Call("start").EnsureSuccess();
        foreach ((int quota, int period) in new[] { (5000, 10000), (40000, 80000), (25000, 100000), (2000, 10000) })
        {
            c.Call("update", "--cpu-period", $"{period}", "--cpu-quota", $"{quota}").EnsureSuccess();
            Assert.Equal(($"{quota}\n", $"{period}\n"), (File.ReadAllText(parent + "/c/cpu.cfs_quota_us"), File.ReadAllText(parent + "/c/cpu.cfs_period_us")));
        }

        // More than the parent has: refused by the kernel.
        Assert.Equal(1, c.Call("update", "--cpu-period", "10000", "--cpu-quota", "9000").ExitCode);
    }

    [SkippableFact]
    public void WeightsOfBlockIoAreWhatTheKernelHas()
    {
        Installation.RequireRuntime();
        string cgroup = Mount("blkio") + _parent;
        Directory.CreateDirectory(cgroup);
        string? file = ((string[])["blkio.weight", "blkio.bfq.weight", "io.bfq.weight", "io.weight"]).FirstOrDefault(f => File.Exists($"{cgroup}/{f}"));
        Skip.If(file is null, "the host's kernel has no block I/O weights");
        using Bundle bundle = Bundle.Create("sleep 1000");
        bundle.Linux["cgroupsPath"] = _parent;
        bundle.Linux["resources"]!["blockIO"] = new JsonObject { ["weight"] = 300 };
        using DetachedContainer c = new(bundle);
        Assert.Equal(0, c.Create().ExitCode);
        c.Call("start").EnsureSuccess();
        string Weight(int weight) => (file == "io.weight" ? 1 + ((weight - 10) * 9999 / 990) : weight).ToString(CultureInfo.InvariantCulture);
        Assert.EndsWith(Weight(300), File.ReadLines($"{cgroup}/{file}").First(), StringComparison.Ordinal);
        c.Call("update", "--blkio-weight", "500").EnsureSuccess();
        Assert.EndsWith(Weight(500), File.ReadLines($"{cgroup}/{file}").First(), StringComparison.Ordinal);
    }

    private static void Freeze(string cgroup, bool frozen) => File.WriteAllText(
        IsUnified ? cgroup + "/cgroup.freeze" : cgroup + "/freezer.state",
        IsUnified ? (frozen ? "1" : "0") : frozen ? "FROZEN" : "THAWED");
}
