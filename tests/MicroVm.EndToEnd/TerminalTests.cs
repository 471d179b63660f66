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

    [SkippableFact]
    public void TheTerminalControlsTheSessionAndIsTheConsole()
    {
        Installation.RequireRuntime();
        const string script = "printf 'a\\nb\\n'; tty; ls -l /proc/self/fd/0 | sed 's/.*-> //'; stat -c %t:%T /dev/console; echo by tty >/dev/tty; echo end";
        using Bundle bundle = Bundle.Create(script + "; sleep 1000");
        using DetachedContainer c = new(bundle);
        using PseudoTerminal terminal = CreateOnConsole(bundle, c);
        c.Call("start").EnsureSuccess();
        terminal.ReadUntil("end");
        Assert.Contains("a\r\nb\r\n/dev/pts/0\r\n/dev/pts/0\r\n88:0\r\nby tty\r\nend", terminal.Bytes, StringComparison.Ordinal);
        for (int i = 0; i < 2; i++)
        {
            // A terminal that has ended is free again.
            using FdListener socket = new(c["exec"]);
            c.Leave("exec", "--detach", "--tty", "--console-socket", c["exec"], c.Id, "sh", "-c", script).EnsureSuccess();
            using (PseudoTerminal second = new(socket.Receive().Fd))
            {
                second.ReadUntil("end");
                Assert.Contains("a\r\nb\r\n/dev/pts/1\r\n/dev/pts/1\r\n88:0\r\nby tty\r\nend", second.Bytes, StringComparison.Ordinal);
            }

            c.Raw("exec", c.Id, "sh", "-c", "while [ -e /dev/pts/1 ]; do sleep 0.05; done").EnsureSuccess();
            File.Delete(c["exec"]);
        }
    }

    [SkippableFact]
    public void WhatIsNoTerminalGetsTheOutputAsItIs()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("printf 'a\\nb\\n'; stty size; tty >/dev/tty");
        bundle.Process["terminal"] = true;
        bundle.Save();
        using DetachedContainer c = new(bundle);
        foreach (string streams in (string[])[">out 2>err", "</dev/null >out 2>err"])
        {
            // With every stream redirected, the terminal of the session is left.
            using PseudoTerminal terminal = new(31, 71);
            using SpawnedProcess run = terminal.Start(
                "/bin/sh", "-c", $"cd {c.Folder}; {Installation.Runtime} --root {c.Root} run --bundle {bundle.Path} {c.Id} {streams}; status=$?; echo done; exit $status");
            terminal.ReadUntil("done");
            Assert.True(run.Wait(Installation.RunDeadline) is { Status: 0 }, File.ReadAllText(c["err"]));
            Assert.Matches("^a\nb\n.*\n/dev/pts/0\n$", File.ReadAllText(c["out"]));
            Assert.Equal("done\r\n", terminal.Bytes);
            Assert.True(terminal.IsCooked);
        }
    }

    [SkippableFact]
    public void ATerminalShowsTheOutputWithOneCarriageReturn()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("printf 'a\\nb\\n'; stty raw -echo; printf 'c\\nd\\n'");
        bundle.Process["terminal"] = true;
        bundle.Save();
        using DetachedContainer c = new(bundle);
        using PseudoTerminal terminal = new(31, 71);
        using SpawnedProcess run = terminal.Start(Installation.Runtime, "--root", c.Root, "run", "--bundle", bundle.Path, c.Id);
        terminal.ReadUntil("d\n");

        // In the foreground the caller's terminal does it, whatever the container's does.
        Assert.Equal("a\r\nb\r\nc\r\nd\r\n", terminal.Bytes);
        Assert.Equal(0, run.Wait(Installation.RunDeadline)!.Value.Status);
        Assert.True(terminal.IsCooked);
    }

    [SkippableFact]
    public void WithoutATerminalThereIsAnError()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("echo ran");
        bundle.Process["terminal"] = true;
        bundle.Save();
        using DetachedContainer c = new(bundle);
        CommandResult run = Shell.Run("setsid", "-w", Installation.Runtime, "--root", c.Root, "run", "--bundle", bundle.Path, c.Id);
        Assert.Equal(1, run.ExitCode);
        Assert.Contains("run failed: open /dev/tty: no such device or address", run.StandardError, StringComparison.Ordinal);
        Assert.Equal("", run.StandardOutput);
    }

    [SkippableFact]
    public void TheCallersSettingOfNewlinesAndItsSizeHoldFromTheStart()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("stty size; printf 'a\\nb\\n'; stty onlcr; printf 'c\\nd\\n'; trap 'stty size; exit 0' WINCH; echo waiting; while :; do sleep 0.1; done");
        using DetachedContainer c = new(bundle);
        using PseudoTerminal terminal = CreateOnConsole(bundle, c);
        terminal.KeepNewlines();
        terminal.Resize(50, 132);
        c.Call("start").EnsureSuccess();
        terminal.ReadUntil("waiting");
        Assert.StartsWith("50 132\na\nb\nc\r\nd\r\n", terminal.Bytes, StringComparison.Ordinal);
        terminal.Resize(51, 133);
        terminal.ReadUntil("51 133");
        Assert.Equal(0, DetachedContainer.Reap(c.Pid));
    }

    [SkippableFact]
    public void KeysReachTheShellAndItsJobs()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("/bin/sh");
        bundle.Process["env"] = new System.Text.Json.Nodes.JsonArray("PATH=/bin", "PS1=ready>");
        using DetachedContainer c = new(bundle);
        using PseudoTerminal terminal = CreateOnConsole(bundle, c);
        c.Call("start").EnsureSuccess();
        terminal.ReadUntil("ready>");
        // Once the trap has run, the job is the terminal's foreground again.
        terminal.Type("stty -echo; sh -c 'trap \"echo resumed\" CONT; echo go; while :; do sleep 0.1; done'\r");
        terminal.ReadUntil("\ngo\n");
        terminal.Type("\u001a");
        terminal.ReadUntil("Stopped");
        terminal.Type("jobs | sed s/Stopped/listed/; fg\r");
        terminal.ReadUntil("listed");
        terminal.ReadUntil("\nresumed\n");
        terminal.Type("\u0003");
        terminal.Type("echo status $?\r");
        terminal.ReadUntil("status 130");
        terminal.Type("echo reads; cat; echo ended\r");
        terminal.ReadUntil("reads\n");
        terminal.Type("line\r");
        terminal.ReadUntil("\nline\n");
        terminal.Type("\u0004");
        terminal.ReadUntil("\nended\n");
        terminal.Type("exit 4\r");
        Assert.Equal(4, DetachedContainer.Reap(c.Pid));
    }

    [SkippableFact]
    public void ALargePasteArrivesWhole()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("stty -echo; echo go; md5sum; echo end");
        using DetachedContainer c = new(bundle);
        using PseudoTerminal terminal = CreateOnConsole(bundle, c);
        c.Call("start").EnsureSuccess();
        terminal.ReadUntil("go");
        string paste = string.Concat(Enumerable.Range(0, 20_000).Select(i => $"{i:D9}\n"));
        terminal.Type(paste);
        terminal.Type("\u0004");
#pragma warning disable CA5351 // busybox has no other that is as quick in a guest
        string sum = Convert.ToHexStringLower(System.Security.Cryptography.MD5.HashData(System.Text.Encoding.ASCII.GetBytes(paste)));
#pragma warning restore CA5351
        Assert.Contains(sum, terminal.ReadUntil("end"), StringComparison.Ordinal);
    }

    [SkippableFact]
    public void ClosingTheTerminalHangsTheSessionUp()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("trap 'exit 7' HUP; echo go; while :; do sleep 0.1; done");
        using DetachedContainer c = new(bundle);
        using (PseudoTerminal terminal = CreateOnConsole(bundle, c))
        {
            c.Call("start").EnsureSuccess();
            terminal.ReadUntil("go");
        }

        Assert.Equal(7, DetachedContainer.Reap(c.Pid));
    }

    [SkippableFact]
    public void ClosingTheTerminalEndsWhatReadsAndWrites()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("trap '' HUP; echo go; cat 2>/dev/null; while echo more; do sleep 0.1; done 2>/dev/null; exit 8");
        using DetachedContainer c = new(bundle);
        using (PseudoTerminal terminal = CreateOnConsole(bundle, c))
        {
            c.Call("start").EnsureSuccess();
            terminal.ReadUntil("go");
        }

        Assert.Equal(8, DetachedContainer.Reap(c.Pid));
    }

    [SkippableFact]
    public void ATerminalThatWasClosedInsideMayBeOpenedAgain()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("echo first; exec </dev/null >/dev/null 2>&1; sleep 0.5; echo second >/dev/console; sleep 0.5; echo third >/dev/tty; exit 5");
        using DetachedContainer c = new(bundle);
        using PseudoTerminal terminal = CreateOnConsole(bundle, c);
        c.Call("start").EnsureSuccess();
        terminal.ReadUntil("third", patient: true);
        Assert.Equal("first\r\nsecond\r\nthird", terminal.Bytes.TrimEnd());
        Assert.Equal(5, DetachedContainer.Reap(c.Pid));
    }

    [SkippableFact]
    public void AHangUpOfTheCallersTerminalReachesAnExec()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("sleep 1000");
        using DetachedContainer c = new(bundle);
        Assert.Equal(0, c.Create().ExitCode);
        c.Call("start").EnsureSuccess();
        PseudoTerminal terminal = new(33, 77);
        using SpawnedProcess exec = terminal.Start(
            Installation.Runtime, "--root", c.Root, "exec", "-t", c.Id, "sh", "-c", "trap 'exit 9' HUP; echo go; while :; do sleep 0.1; done");
        terminal.ReadUntil("go");
        terminal.Dispose();
        Assert.Equal(9, exec.Wait(Installation.RunDeadline)!.Value.Status);
    }

    private static PseudoTerminal CreateOnConsole(Bundle bundle, DetachedContainer c)
    {
        bundle.Process["terminal"] = true;
        using FdListener socket = new(c["console"]);
        CommandResult create = c.Create("--console-socket", c["console"]);
        Assert.True(create.ExitCode == 0, create.ToString());
        return new PseudoTerminal(socket.Receive().Fd);
    }
}
