using System.Diagnostics;
using System.Globalization;
using MicroVm.EndToEnd.Support;
using MicroVm.Linux.Native;

namespace MicroVm.EndToEnd;

/// <summary>Whatever a guest, its VMM or a container's process on the host does: commands end in time, and SIGKILL ends the container.</summary>
public sealed class PatienceTests
{
    // Far below the three minutes that a start may take, and far above the few seconds that are waited for.
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    [SkippableFact]
    public void AnAgentThatStopsAnsweringLaterIsEndedBySigkill()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("echo must not run");
        using DetachedContainer c = new(bundle);
        c.Create(HostileAgent.Flags(bundle, "later", 60)).EnsureSuccess();
        c.Call("start").EnsureSuccess();
        int pid = c.Pid;
        CommandResult pause = InTime(c, "pause", c.Id);
        Assert.True(pause.ExitCode == 1, pause.ToString());
        Assert.Contains("PauseContainer: no answer within 10 s", pause.StandardError, StringComparison.Ordinal);
        Assert.Equal("running", c.Status);
        InTime(c, "kill", c.Id, "KILL").EnsureSuccess();
        Assert.Equal(137, DetachedContainer.Reap(pid));
        Assert.Equal("stopped", c.Status);
        InTime(c, "delete", c.Id).EnsureSuccess();
        Assert.Empty(Directory.EnumerateFileSystemEntries(c.Root));
    }

    [SkippableFact]
    public void AnAgentThatOnlySaysThatItKilledLosesItsVm()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("echo must not run");
        using DetachedContainer c = new(bundle);
        c.Create(HostileAgent.Flags(bundle, "immortal", 60)).EnsureSuccess();
        c.Call("start").EnsureSuccess();
        int pid = c.Pid;
        InTime(c, "kill", c.Id, "TERM").EnsureSuccess();
        Assert.Equal("running", c.Status);
        InTime(c, "kill", c.Id, "KILL").EnsureSuccess();
        Assert.Equal(137, DetachedContainer.Reap(pid));
    }

    [SkippableTheory]
    [InlineData("kill", "KILL")]
    [InlineData("delete", "--force")]
    public void AStoppedVmmIsEnded(string command, string argument)
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("sleep 1000");
        using DetachedContainer c = Started(bundle);
        int pid = c.Pid;
        Assert.Equal(0, Libc.kill(c.Vmm, Libc.SIGSTOP));
        Assert.Equal("running", c.Status);
        InTime(c, command == "kill" ? [command, c.Id, argument] : [command, argument, c.Id]).EnsureSuccess();
        Assert.Equal(137, DetachedContainer.Reap(pid));
    }

    [SkippableTheory]
    [InlineData("kill", "KILL")]
    [InlineData("delete", "--force")]
    public void AStoppedProcessOnTheHostIsEnded(string command, string argument)
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("sleep 1000");
        using DetachedContainer c = Started(bundle);
        int pid = c.Pid, vmm = c.Vmm;
        Assert.Equal(0, Libc.kill(pid, Libc.SIGSTOP));
        Assert.Equal("running", c.Status);
        InTime(c, command == "kill" ? [command, c.Id, argument] : [command, argument, c.Id]).EnsureSuccess();
        Assert.Equal(137, DetachedContainer.Reap(pid));
        DetachedContainer.Eventually(() => !ProcessTree.IsAlive(vmm), "the VMM lives on");
    }

    [SkippableFact]
    public void SigtermEndsAVmmWhoseGuestSpins()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("echo spins; while :; do :; done");
        using DetachedContainer c = Started(bundle);
        c.WaitForOutput("spins");
        int pid = c.Pid;
        Assert.Equal(0, Libc.kill(c.Vmm, Libc.SIGTERM));
        Assert.Equal(137, DetachedContainer.Reap(pid));
        Assert.Equal("stopped", c.Status);
    }

    private static DetachedContainer Started(Bundle bundle)
    {
        DetachedContainer c = new(bundle);
        c.Create().EnsureSuccess();
        c.Call("start").EnsureSuccess();
        return c;
    }

    /// <summary>Runs a command that must not wait for the guest.</summary>
    private static CommandResult InTime(DetachedContainer c, params string[] arguments)
    {
        string name = string.Create(CultureInfo.InvariantCulture, $"out-{Guid.NewGuid():N}");
        using Process process = c.Begin(name, arguments);
        if (!process.WaitForExit(Patience))
        {
            process.Kill();
            Assert.Fail($"{string.Join(' ', arguments)} did not end within {Patience.TotalSeconds} s");
        }

        return new CommandResult(process.ExitCode, File.ReadAllText(c[name]), File.ReadAllText(c[name] + ".err"));
    }
}
