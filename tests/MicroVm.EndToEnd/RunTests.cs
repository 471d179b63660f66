using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>Limits, the root file system and vCPUs: containers that need a configuration of their own.</summary>
public sealed class LimitTests
{
    [SkippableFact]
    public void MemoryLimitKillsAndSaysSo()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("/bin/tail", "/dev/zero");
        bundle.Linux["resources"]!["memory"] = new JsonObject { ["limit"] = 16 << 20 };
        CommandResult result = Container.Run(bundle);
        Assert.True(result.ExitCode == 137, result.ToString());
        if (Installation.IsMicroVm)
        {
            Assert.Contains("memory", result.StandardError, StringComparison.OrdinalIgnoreCase);
        }
    }

    [SkippableFact]
    public void PidsLimitRefusesForks()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create(
            "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1000 & done; echo all started");
        bundle.Linux["resources"]!["pids"] = new JsonObject { ["limit"] = 6 };
        CommandResult result = Container.Run(bundle);
        Assert.DoesNotContain("all started", result.StandardOutput, StringComparison.Ordinal);
        Assert.Contains("fork", result.StandardError, StringComparison.Ordinal);
        Assert.NotEqual(0, result.ExitCode);
    }

    [SkippableFact]
    public void ReadOnlyRootfsRefusesWrites()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("touch /new; mkdir /dir; rm /bin/busybox; echo x > /tmp/x; echo y > /dev/shm/y && echo shm");
        bundle.Config["root"]!["readonly"] = true;
        CommandResult result = Container.Run(bundle);
        Assert.Equal(3, result.StandardError.Split("Read-only file system").Length - 1 - (result.StandardError.Contains("/tmp/x", StringComparison.Ordinal) ? 1 : 0));
        Assert.Equal("shm\n", result.StandardOutput);
        Assert.False(File.Exists(Path.Combine(bundle.Rootfs, "new")));
        Assert.True(File.Exists(Path.Combine(bundle.Rootfs, "bin/busybox")));
    }

    [SkippableFact]
    public void TwoVcpusAreSeenAndUsed()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create(
            "grep -c ^processor /proc/cpuinfo; i=0; (while [ $i -lt 20000 ]; do i=$((i+1)); done; echo one) & while [ $i -lt 20000 ]; do i=$((i+1)); done; wait; echo two");
        CommandResult result = Container.Run(bundle, "--vcpus", "2");
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.Equal("2\none\ntwo\n", result.StandardOutput);
    }
}

/// <summary>The guest's own process state under load.</summary>
public sealed class VectorStateTests
{
    [SkippableFact]
    public void VectorRegistersSurviveContextSwitches()
    {
        Installation.RequireRuntime();
        string rounds = Installation.KernelCodeIsEmulated || Installation.IsLab ? "40" : Installation.KvmIsOrdinary ? "20000" : "1000";
        using Bundle bundle = Bundle.Create("/bin/vector-torture", "12", rounds);
        bundle.AddGuestProgram("vector-torture");
        CommandResult result = Container.Run(bundle);
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.Contains("12 of 12 processes kept their registers", result.StandardOutput, StringComparison.Ordinal);
    }

    // Tiles are saved whole, or a program that asks for them is refused: by CPUID, and by the kernel that it asks.
    [SkippableFact]
    public void TilesSurviveContextSwitchesOrAreRefused()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("/bin/amx-tiles", "6", "40");
        bundle.AddGuestProgram("amx-tiles");
        CommandResult result = Container.Run(bundle);
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.Matches(@"^(6 of 6 processes kept their tiles|(no )?AMX, refused: [^,]+, ended by signal \d+)\n$", result.StandardOutput);
        if (Installation.IsMicroVm && Installation.KvmIsOrdinary)
        {
            // The processor itself refuses what XCR0 has not.
            Assert.EndsWith("ended by signal 4\n", result.StandardOutput, StringComparison.Ordinal);
        }
    }

    [SkippableFact]
    public void TilesOfOneProcessAreNotFoundInAnother()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("amx-tiles hold >/tmp/held & until [ -s /tmp/held ]; do sleep 0.1; done; cat /tmp/held; amx-tiles look 2000");
        bundle.AddGuestProgram("amx-tiles");
        bundle.Linux["resources"] = JsonNode.Parse("""{"cpu":{"cpus":"0"}}""");
        CommandResult result = Container.Run(bundle);
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.Matches(@"^(holding\n2000 looks found 0 configurations, 0 tiles|refused\n(refused|2000 looks found 0 configurations, 0 tiles))\n$", result.StandardOutput);
    }

    [SkippableFact]
    public void TilesOfOneVmAreNotFoundInAnother()
    {
        Installation.RequireRuntime();
        using Bundle holding = Bundle.Create("/bin/amx-tiles", "hold"), looking = Bundle.Create("/bin/amx-tiles", "look", "1000");
        foreach (Bundle bundle in (Bundle[])[holding, looking])
        {
            bundle.AddGuestProgram("amx-tiles");
            bundle.Linux["resources"] = JsonNode.Parse("""{"cpu":{"cpus":"0"}}""");
        }

        using Container container = Container.Start(holding);
        bool held = container.WaitForOutput("\n", 0, out _) == "holding\n";
        CommandResult result = Container.Run(looking);
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.Matches(@"^(1000 looks found 0 configurations, 0 tiles|refused)\n$", result.StandardOutput);
        Assert.True(!held || result.StandardOutput.StartsWith("1000 ", StringComparison.Ordinal), result.ToString());
    }

    // A host that emulates an ordinary kernel boots its own one, unless told otherwise: then the instruction emulator completes what
    // KVM's emulator lacks, XSAVE among it.
    [SkippableFact]
    public void VectorRegistersSurviveUnderAnOrdinaryKernelThatIsEmulated()
    {
        Installation.RequireKvm();
        Skip.If(Installation.KvmIsOrdinary, "this host's KVM runs ordinary kernels: the other tests boot one");
        using Bundle bundle = Bundle.Create("/bin/vector-torture", "6", "10");
        bundle.AddGuestProgram("vector-torture");
        using Container container = Container.Start(bundle, "--start-timeout", "900", "--kernel", Path.Combine(Installation.Libexec, "vmlinux"));
        container.Process.StandardInput.Close();
        CommandResult result = container.Wait(TimeSpan.FromMinutes(15));
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.Contains("6 of 6 processes kept their registers", result.StandardOutput, StringComparison.Ordinal);
    }
}
