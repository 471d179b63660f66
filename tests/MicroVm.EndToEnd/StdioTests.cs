using System.Security.Cryptography;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>Standard streams, terminal and signals of `run`.</summary>
public sealed class StdioTests
{
    [SkippableFact]
    public async Task StandardInputComesBackUnchanged()
    {
        Installation.RequireRuntime();
        byte[] data = new byte[(Installation.KernelCodeIsEmulated || Installation.IsLab ? 4 : 64) << 20];
        new Random(1).NextBytes(data);
        using Bundle bundle = Bundle.Create("/bin/cat");
        using Container container = Container.Start(bundle);
        await container.Input.WriteAsync(data);
        container.Input.Close();
        CommandResult result = container.Wait();
        Assert.True(result.ExitCode == 0, result.StandardError);
        Assert.Equal(data.Length, container.OutputBytes.Length);
        Assert.Equal(SHA256.HashData(data), SHA256.HashData(container.OutputBytes));
    }

    [SkippableFact]
    public void OutputAndErrorStayApart()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("echo to-out; echo to-err >&2; echo more > /dev/stdout; echo worse > /dev/stderr; exit 3");
        CommandResult result = Container.Run(bundle);
        Assert.Equal(3, result.ExitCode);
        Assert.Equal("to-out\nmore\n", result.StandardOutput);
        Assert.Equal("to-err\nworse\n", result.StandardError);
    }

    [SkippableFact]
    public void SignalIsForwardedToTheInit()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("trap 'echo got it; exit 9' TERM; echo ready; while :; do sleep 0.2; done");
        using Container container = Container.Start(bundle);
        container.WaitForOutput("ready");
        Shell.Run("kill", "-TERM", $"{container.Process.Id}").EnsureSuccess();
        CommandResult result = container.Wait();
        Assert.Equal("ready\ngot it\n", result.StandardOutput);
        Assert.Equal(9, result.ExitCode);
    }

    [SkippableFact]
    public void DeathBySignalIs128PlusSignal()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("sh -c 'kill -9 $$'; echo inner $?; sh -c 'kill -15 $$'; exit $?");
        CommandResult result = Container.Run(bundle);
        Assert.Contains("inner 137", result.StandardOutput, StringComparison.Ordinal);
        Assert.Equal(143, result.ExitCode);
    }

    [SkippableFact]
    public void TerminalHasSizeIsRawAndResizes()
    {
        Installation.RequireRuntime();
        Skip.IfNot(File.Exists("/usr/bin/script"), "script(1) of util-linux is not installed");

        // runc tells the terminal its size after the start.
        using Bundle bundle = Bundle.Create(
            "tty; until stty size 2>/dev/null | grep '[1-9]'; do sleep 0.1; done; trap 'stty size; exit 5' WINCH; echo waiting; while :; do sleep 0.2; done");
        bundle.Process["terminal"] = true;
        bundle.Save();
        string root = Directory.CreateTempSubdirectory("microvm-root-").FullName;
        try
        {
            string script = $$"""
                stty rows 33 cols 77
                (while [ ! -e {{root}}/ended ] && ! grep -q waiting {{root}}/log; do sleep 0.2; done; stty rows 40 cols 100 </dev/tty) &
                {{Installation.Runtime}} --root {{root}}/state run --bundle {{bundle.Path}} tty-{{Environment.ProcessId}}
                echo status $?; touch {{root}}/ended
                stty -a | grep -o -e '-*echo ' -e '-*icanon'
                """;
            File.WriteAllText(Path.Combine(root, "drive"), script);
            CommandResult result = Shell.Run(
                "timeout", $"{(int)Installation.RunDeadline.TotalSeconds}", "script", "-qefc", $"sh {root}/drive", $"{root}/log");
            string[] lines = result.StandardOutput.Replace("\r", "", StringComparison.Ordinal).Split('\n', StringSplitOptions.RemoveEmptyEntries);

            // script(1) passes the end of its own input on as a character, which the terminal echoes.
            Assert.Contains(lines, l => l.EndsWith("/dev/pts/0", StringComparison.Ordinal));
            Assert.Contains("33 77", lines);
            Assert.Contains("40 100", lines);
            Assert.Contains("status 5", lines);
            Assert.Contains("icanon", lines.Select(l => l.Trim()));
            Assert.Contains("echo", lines.Select(l => l.Trim()));
        }
        finally
        {
            Directory.Delete(root, recursive: true);
        }
    }

    [SkippableFact]
    public void InterruptKeyReachesTheProcess()
    {
        Installation.RequireRuntime();
        Skip.IfNot(File.Exists("/usr/bin/script"), "script(1) of util-linux is not installed");
        using Bundle bundle = Bundle.Create("trap 'echo interrupted; exit 6' INT; echo waiting; while :; do sleep 0.2; done");
        bundle.Process["terminal"] = true;
        bundle.Save();
        string root = Directory.CreateTempSubdirectory("microvm-root-").FullName;
        try
        {
            // The key is typed by a writer on script's input once the container waits.
            string command = $"(while [ ! -e {root}/ended ] && ! grep -q waiting {root}/log; do sleep 0.2; done; printf '\\003'; while [ ! -e {root}/ended ]; do sleep 0.1; done) | {{ " +
                $"timeout {(int)Installation.RunDeadline.TotalSeconds} script -qefc '{Installation.Runtime} --root {root}/state run --bundle {bundle.Path} int-{Environment.ProcessId}' {root}/log; " +
                $"status=$?; touch {root}/ended; exit $status; }}";
            CommandResult result = Shell.Run("sh", "-c", command);
            Assert.Contains("interrupted", result.StandardOutput, StringComparison.Ordinal);
            Assert.Equal(6, result.ExitCode);
        }
        finally
        {
            Directory.Delete(root, recursive: true);
        }
    }
}
