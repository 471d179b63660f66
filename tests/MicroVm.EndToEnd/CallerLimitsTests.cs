using System.Globalization;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>What a process has of its caller and of the host where the configuration says nothing, whatever the size of its VM.</summary>
public sealed class CallerLimitsTests
{
    private static readonly string[] Settings =
    [
        "fs/protected_symlinks", "fs/protected_hardlinks", "fs/protected_fifos", "fs/protected_regular", "fs/inotify/max_user_watches",
        "fs/inotify/max_user_instances", "fs/inotify/max_queued_events", "fs/file-max", "fs/aio-max-nr", "vm/max_map_count",
    ];

    private static readonly string[] Limits = ["Max processes", "Max core file size", "Max stack size", "Max file size", "Max locked memory", "Max pending signals"];

    [SkippableFact]
    public void LimitsThatAreNotConfiguredAreTheCallers()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("cat /proc/self/limits; sleep 1000");
        bundle.Process.Remove("rlimits");
        bundle.Save();
        using DetachedContainer c = new(bundle);
        string[] with = ["--nproc=20000:30000", "--core=4096", "--stack=16777216", "--fsize=900000000", "--nofile=500:15000"];
        string[] prlimit = ["prlimit", .. with];
        string expected = Shell.Run(prlimit[0], [.. with, "cat", "/proc/self/limits"]).EnsureSuccess().StandardOutput;
        string line = $"exec prlimit {string.Join(' ', with)} {Installation.Runtime} --root {c.Root} run -d --bundle {bundle.Path} --pid-file {c["pid"]} {c.Id} </dev/null >{c["out"]} 2>&1";
        Shell.Run("sh", "-c", line).EnsureSuccess();
        File.WriteAllText(c["err"], "");
        c.WaitForOutput("Max realtime timeout");
        Assert.Equal(Lines(expected), Lines(c.Output));
        Assert.Equal("15000", OpenFiles(c.Output));
        string exec = Shell.Run(prlimit[0], [.. with, Installation.Runtime, "--root", c.Root, "exec", c.Id, "cat", "/proc/self/limits"]).EnsureSuccess().StandardOutput;
        Assert.Equal(Lines(expected), Lines(exec));
        Assert.Equal("15000", OpenFiles(exec));
    }

    [SkippableFact]
    public void TheKernelsLimitsAreTheHosts()
    {
        Installation.RequireRuntime();
        Skip.If(File.ReadAllText("/proc/sys/vm/overcommit_memory").Trim() == "2", "the host itself refuses large allocations");
        using Bundle bundle = Bundle.Create("cat /proc/sys/kernel/threads-max /proc/sys/kernel/pid_max; dd if=/dev/zero of=/dev/null bs=900M count=0 2>/dev/null && echo granted");
        string[] lines = Container.Run(bundle).StandardOutput.Split('\n');
        Assert.Equal((File.ReadAllText("/proc/sys/kernel/threads-max").Trim(), "granted"), (lines[0], lines[2]));

        // A new PID namespace of a kernel since 6.14 has a limit of its own, which is higher.
        Assert.InRange(int.Parse(lines[1], CultureInfo.InvariantCulture), Math.Min(32768, int.Parse(File.ReadAllText("/proc/sys/kernel/pid_max"), CultureInfo.InvariantCulture)), int.MaxValue);
    }

    /// <summary>What programs read before they start, or run into: how many files may be watched, who may follow a link in /tmp.</summary>
    [SkippableFact]
    public void TheKernelsSettingsForFilesAreTheHosts()
    {
        Installation.RequireRuntime();
        string line = $"cd /proc/sys; head -n 1 {string.Join(' ', Settings)}";
        using Bundle bundle = Bundle.Create(line);
        string expected = Shell.Run("sh", "-c", line).EnsureSuccess().StandardOutput;
        Assert.Equal(expected, Container.Run(bundle).EnsureSuccess().StandardOutput);
    }

    private static IEnumerable<string> Lines(string limits) =>
        Limits.Select(l => limits.Split('\n').Single(line => line.StartsWith(l + "  ", StringComparison.Ordinal)).TrimEnd());

    private static string OpenFiles(string limits) =>
        limits.Split('\n').Single(l => l.StartsWith("Max open files", StringComparison.Ordinal)).Split(' ', StringSplitOptions.RemoveEmptyEntries)[4];
}
