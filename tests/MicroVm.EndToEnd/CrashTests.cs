using System.Diagnostics;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>Killing any one of the processes leaves nothing behind.</summary>
public sealed class CrashTests
{
    [SkippableFact]
    public void KillingTheVmmEndsTheContainerAndLeavesNothing()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("echo ready; sleep 1000");
        using Container container = Container.Start(bundle);
        container.WaitForOutput("ready");
        int vmm = Assert.Single(container.VmmPids());
        string mounts = File.ReadAllText("/proc/mounts");
        Process.GetProcessById(vmm).Kill();
        CommandResult result = container.Wait();
        Assert.True(result.ExitCode == 1, result.ToString());
        Assert.Single(result.StandardError.Split('\n', StringSplitOptions.RemoveEmptyEntries));
        Assert.Empty(Directory.EnumerateFileSystemEntries(container.Root));
        Assert.Equal(mounts, File.ReadAllText("/proc/mounts"));
        Assert.False(ProcessTree.IsAlive(vmm));
    }

    [SkippableFact]
    public void KillingTheCliEndsTheVmmAndFreesTheId()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("echo ready; sleep 1000");
        using Container container = Container.Start(bundle);
        container.WaitForOutput("ready");
        int vmm = Assert.Single(container.VmmPids());
        container.Process.Kill();
        container.Process.WaitForExit();
        Stopwatch watch = Stopwatch.StartNew();
        while ((ProcessTree.IsAlive(vmm) || Directory.EnumerateFileSystemEntries(container.Root).Any()) && watch.Elapsed < TimeSpan.FromSeconds(20))
        {
            Thread.Sleep(20);
        }

        Assert.False(ProcessTree.IsAlive(vmm));
        Assert.Empty(Directory.EnumerateFileSystemEntries(container.Root));
        using Bundle again = Bundle.Create("echo second");
        again.Save();
        CommandResult second = Shell.Run(
            Installation.Cli, "--root", container.Root, "run", "--bundle", again.Path, container.Id);
        Assert.Equal("second\n", second.StandardOutput);
        Assert.Equal(0, second.ExitCode);
        Assert.Empty(Directory.EnumerateFileSystemEntries(container.Root));
    }
}
