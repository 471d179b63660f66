using MicroVm.EndToEnd.Support;
using MicroVm.Linux;

namespace MicroVm.EndToEnd;

/// <summary>Terminals: a person's own in the foreground, and those that are sent to a caller's console socket.</summary>
public sealed class TerminalTests
{
    [SkippableFact]
    public void ExecInTheForegroundIsOnTheCallersTerminal()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("sleep 1000");
        using DetachedContainer c = new(bundle);
        Assert.Equal(0, c.Create().ExitCode);
        c.Call("start").EnsureSuccess();
        using PseudoTerminal terminal = new(33, 77);

        // runc sets the size once the process runs: until then stty knows none.
        using SpawnedProcess exec = terminal.Start(
            Installation.Runtime, "--root", c.Root, "exec", "-t", c.Id, "sh", "-c",
            "tty; until stty size 2>/dev/null | grep '[1-9]'; do sleep 0.1; done; trap 'stty size; resized=1' WINCH; echo waiting; while [ -z $resized ]; do sleep 0.1; done; echo go; " +
            "read line; echo got $line; trap 'exit 9' INT; echo now; while :; do sleep 0.1; done");
        string text = terminal.ReadUntil("waiting");
        Assert.Contains("/dev/pts/", text, StringComparison.Ordinal);
        Assert.Contains("33 77\n", text, StringComparison.Ordinal);
        Assert.False(terminal.IsCooked);
        terminal.Resize(40, 100);
        Assert.Contains("40 100\n", terminal.ReadUntil("go"), StringComparison.Ordinal);
        terminal.Type("typed\r");
        Assert.Contains("got typed\n", terminal.ReadUntil("now"), StringComparison.Ordinal);
        terminal.Type("\u0003");
        Assert.Equal(9, exec.Wait(Installation.RunDeadline)!.Value.Status);
        Assert.True(terminal.IsCooked);
    }

    [SkippableFact]
    public void CreateSendsTheTerminalToTheConsoleSocket()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("stty size; read line; echo got $line; exit 6");
        bundle.Process["terminal"] = true;
        bundle.Process["consoleSize"] = System.Text.Json.Nodes.JsonNode.Parse("""{"height":21,"width":43}""");
        using DetachedContainer c = new(bundle);
        using FdListener socket = new(c["console"]);
        CommandResult create = c.Create("--console-socket", c["console"]);
        Assert.True(create.ExitCode == 0, create.ToString());
        (SafeFd master, string name) = socket.Receive();
        Assert.NotEqual("", name);
        using PseudoTerminal terminal = new(master);
        c.Call("start").EnsureSuccess();
        Assert.Contains("21 43", terminal.ReadUntil("21 43"), StringComparison.Ordinal);
        terminal.Type("typed\r");
        terminal.ReadUntil("got typed");
        Assert.Equal(6, DetachedContainer.Reap(c.Pid));
    }
}
