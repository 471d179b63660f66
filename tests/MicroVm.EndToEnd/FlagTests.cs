using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>Flags that no other test gives, and those that are refused by name.</summary>
public sealed class FlagTests
{
    [SkippableTheory]
    [InlineData("create --preserve-fds 1 a", 1, "--preserve-fds is not supported: descriptors cannot be passed into a VM")]
    [InlineData("run --preserve-fds=2 a", 1, "--preserve-fds is not supported")]
    [InlineData("exec --preserve-fds 1 a true", 255, "--preserve-fds is not supported")]
    [InlineData("exec --process-label l a true", 255, "--process-label is not supported: the guest kernel has no SELinux (docker, podman: --security-opt label=disable")]
    [InlineData("exec --apparmor p a true", 255, "--apparmor is not supported: the guest kernel has no AppArmor (docker, podman: --security-opt apparmor=unconfined")]
    [InlineData("exec --cgroup cpu:sub a true", 255, "unknown controller cpu in SubCgroupPaths")]
    [InlineData("exec --cgroup ../other a true", 255, "../other is not a sub cgroup path")]
    [InlineData("update --l3-cache-schema L3:0=f a", 1, "--l3-cache-schema is not supported: cache and bandwidth allocation belong to the host")]
    [InlineData("update --mem-bw-schema MB:0=20 a", 1, "--mem-bw-schema is not supported")]
    [InlineData("checkpoint --leave-running a", 1, "checkpoint is not supported: CRIU works on processes of the host")]
    [InlineData("restore --detach a", 1, "restore is not supported")]
    [InlineData("spec --rootless", 1, "--rootless is not supported: micro-VMs are started by root")]
    public void WhatAVmCannotDoIsRefusedByName(string line, int status, string named)
    {
        Installation.RequireKvm();
        string root = Directory.CreateTempSubdirectory("microvm-root-").FullName;
        try
        {
            CommandResult result = Shell.Run(Installation.Runtime, ["--root", root, .. line.Split(' ')]);
            Assert.Equal((status, ""), (result.ExitCode, result.StandardOutput));
            Assert.Contains(named, Assert.Single(result.StandardError.Split('\n', StringSplitOptions.RemoveEmptyEntries)), StringComparison.Ordinal);
            Assert.Empty(Directory.EnumerateFileSystemEntries(root));
        }
        finally
        {
            Directory.Delete(root, recursive: true);
        }
    }

    [SkippableFact]
    public void FlagsOfRuncThatHaveNoEffectAreAccepted()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("sleep 1000");
        bundle.Save();
        using DetachedContainer c = new(bundle);
        Assert.Equal(0, c.Create("--no-pivot", "--no-new-keyring", "--preserve-fds", "0").ExitCode);
        c.Raw("--rootless=auto", "--criu", "/usr/sbin/criu", "start", c.Id).EnsureSuccess();
        Assert.Equal(0, c.Raw("exec", "--no-subreaper", c.Id, "true").ExitCode);
        c.Call("delete", "--force").EnsureSuccess();
        Assert.Equal(0, Shell.Run(Installation.Runtime, "--root", c.Root, "run", "--no-subreaper", "--no-pivot", "--bundle", Quick(bundle), c.Id).ExitCode);
    }

    [SkippableFact]
    public void RunKeepsTheContainerWhenAsked()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("exit 7");
        bundle.Save();
        using DetachedContainer c = new(bundle);
        Assert.Equal(7, c.Raw("run", "--keep", "--bundle", bundle.Path, "--pid-file", c["pid"], c.Id).ExitCode);
        Assert.Equal("stopped", c.Status);
        Assert.True(c.Pid > 0);
        c.Call("delete").EnsureSuccess();
        Assert.Equal(7, c.Raw("run", "--bundle", bundle.Path, c.Id).ExitCode);
        Assert.Empty(Directory.EnumerateFileSystemEntries(c.Root));
    }

    [SkippableFact]
    public void RunInTheBackgroundReturnsOnceTheContainerRuns()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("sleep 1000");
        bundle.Save();
        using DetachedContainer c = new(bundle);
        c.Leave("run", "-d", "--bundle", bundle.Path, "--pid-file", c["pid"], c.Id).EnsureSuccess();
        Assert.Equal("running", c.Status);
        c.Raw("kill", "-a", c.Id, "9").EnsureSuccess();
        Assert.Equal(137, DetachedContainer.Reap(c.Pid));
    }

    [SkippableFact]
    public void APausedContainerTakesAProcessWhenAsked()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("sleep 1000");
        using DetachedContainer c = new(bundle);
        Assert.Equal(0, c.Create().ExitCode);
        c.Call("start").EnsureSuccess();
        c.Call("pause").EnsureSuccess();
        System.Diagnostics.Process exec = c.Begin("exec-out", "exec", "--ignore-paused", c.Id, "sh", "-c", "echo thawed; exit 4");
        DetachedContainer.Eventually(() => JsonNode.Parse(c.Call("ps", "-f", "json").StandardOutput)!.AsArray().Count == 2, "no second process");
        c.Call("resume").EnsureSuccess();
        Assert.Equal(4, DetachedContainer.End(exec));
        Assert.Equal("thawed\n", File.ReadAllText(c["exec-out"]));
    }

    [SkippableFact]
    public void ADebuggedExecTellsItsSteps()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("sleep 1000");
        using DetachedContainer c = new(bundle);
        Assert.Equal(0, c.Create().ExitCode);
        c.Call("start").EnsureSuccess();
        CommandResult exec = c.Raw("--debug", "--log", c["exec-log"], "exec", c.Id, "echo", "done").EnsureSuccess();
        Assert.Equal(("done\n", ""), (exec.StandardOutput, exec.StandardError));
        string log = File.ReadAllText(c["exec-log"]);
        foreach (string step in (string[])["the process on the host is started", "connected to the agent", "the guest has started the process", "the process runs"])
        {
            Assert.Matches($@"level=debug msg=""{step} \(\+[0-9.]+ ms\)""", log);
        }
    }

    [SkippableFact]
    public void OurOwnFlagsShapeTheVm()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("grep MemTotal /proc/meminfo; cat /proc/cmdline");
        CommandResult result = Container.Run(bundle, "--vm-memory", "200", "--kernel-args", "quux=17");
        Assert.True(result.ExitCode == 0, result.ToString());
        int total = int.Parse(result.StandardOutput.Split(' ', StringSplitOptions.RemoveEmptyEntries)[1], System.Globalization.CultureInfo.InvariantCulture);
        Assert.InRange(total, 150 << 10, 200 << 10);
        Assert.Contains("quux=17", result.StandardOutput, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void SystemdsFormOfTheCgroupIsAPath()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("sleep 1000");
        string slice = $"e{Guid.NewGuid():N}"[..9];
        bundle.Linux["cgroupsPath"] = $"{slice}-inner.slice:pre:name";
        bundle.Save();
        using DetachedContainer c = new(bundle);
        c.Leave("--systemd-cgroup", "create", "--bundle", bundle.Path, "--pid-file", c["pid"], c.Id).EnsureSuccess();
        string parent = $"/{slice}.slice/{slice}-inner.slice", inner = parent + "/pre-name.scope";
        try
        {
            Assert.Contains(File.ReadLines($"/proc/{c.Pid}/cgroup"), l => l.EndsWith(":" + inner, StringComparison.Ordinal));
            c.Call("delete", "--force").EnsureSuccess();
            Assert.Empty(DetachedContainer.CgroupFolders(inner));
        }
        finally
        {
            // As runc without systemd: folders above the container's stay.
            foreach (string folder in DetachedContainer.CgroupFolders(parent).Concat(DetachedContainer.CgroupFolders($"/{slice}.slice")))
            {
                Directory.Delete(folder);
            }
        }
    }

    [SkippableFact]
    public void VersionFeaturesAndSpecAreRuncsDocuments()
    {
        Installation.RequireRuntime();
        Assert.Matches("^[a-z]+ version \\S+\ncommit: \\S+\nspec: \\S+\n", Shell.Run(Installation.Runtime, "--version").EnsureSuccess().StandardOutput);
        Assert.Equal(Shell.Run(Installation.Runtime, "--version").StandardOutput, Shell.Run(Installation.Runtime, "-v").StandardOutput);
        JsonNode features = JsonNode.Parse(Shell.Run(Installation.Runtime, "features").EnsureSuccess().StandardOutput)!;
        Assert.StartsWith("1.", (string)features["ociVersionMin"]!, StringComparison.Ordinal);
        Assert.Contains("poststop", features["hooks"]!.AsArray().Select(h => (string)h!));
        Assert.Contains("rbind", features["mountOptions"]!.AsArray().Select(o => (string)o!));
        Assert.Contains("CAP_CHOWN", features["linux"]!["capabilities"]!.AsArray().Select(o => (string)o!));
        string folder = Directory.CreateTempSubdirectory("microvm-spec-").FullName;
        try
        {
            Shell.Run(Installation.Runtime, "spec", "-b", folder).EnsureSuccess();
            JsonNode spec = JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "config.json")))!;
            Assert.Equal("[\"sh\"]", spec["process"]!["args"]!.ToJsonString());
            Assert.Equal((true, true), ((bool)spec["process"]!["terminal"]!, (bool)spec["root"]!["readonly"]!));
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    [SkippableFact]
    public void DoctorFindsNothingMissingWhereContainersRun()
    {
        Installation.RequireKvm();
        CommandResult doctor = Shell.Run(Installation.Runtime, "doctor");
        Assert.True(doctor.ExitCode == 0, doctor.ToString());
        Assert.Contains("/dev/kvm", doctor.StandardOutput, StringComparison.Ordinal);
    }

    private static string Quick(Bundle bundle)
    {
        bundle.Process["args"] = new JsonArray("true");
        bundle.Save();
        return bundle.Path;
    }
}
