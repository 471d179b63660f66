using System.Diagnostics;
using System.Globalization;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>The threads of a container's cgroup on the host have a bound, whatever makes them; whoever meets it is told, and the container runs on.</summary>
public sealed class ThreadBoundTests
{
    private const int MostThreads = 2048;

    [SkippableFact]
    public void NoMoreThreadsThanTheCgroupMayHave()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("echo ready; cat");
        bundle.Linux.Remove("resources");
        using Container container = Container.Start(bundle, "--vcpus", "1");
        container.WaitForOutput("ready");
        int vmm = Assert.Single(container.VmmPids());
        string cgroup = JailTests.FolderOfCgroup($"/proc/{vmm}", "pids");
        int before = Number("pids.current");
        ProcessStartInfo start = new("sh", ["-c", "echo $$ >$0/cgroup.procs; exec $1", cgroup, Installation.GuestProgram("threads")]) { RedirectStandardInput = true, RedirectStandardOutput = true };
        using Process bomb = Process.Start(start)!;
        try
        {
            Match told = Regex.Match(bomb.StandardOutput.ReadLine()!, @"^(\d+) threads: EAGAIN$");
            Assert.True(told.Success, told.ToString());
            int made = int.Parse(told.Groups[1].Value, CultureInfo.InvariantCulture);

            // A process of the container's may have ended or begun meanwhile.
            Assert.InRange(made, MostThreads - before - 16, MostThreads);
            Assert.InRange(Number("pids.current"), MostThreads - 16, MostThreads);

            // The host has threads for others, and the container works.
            Assert.Equal("other\n", Shell.Run("sh", "-c", "(echo other) | cat").StandardOutput);
            container.Input.Write("still here\n"u8);
            container.Input.Flush();
            container.WaitForOutput("still here");
            CommandResult refused = Exec(container);
            Assert.True(refused.ExitCode != 0, refused.ToString());
            Assert.True(refused.StandardError.Contains("no thread, or no memory, is left for it on the host", StringComparison.Ordinal), refused.StandardError);

            // The container's process on the host answers without a thread more.
            Assert.Equal("running", JsonNode.Parse(Call("state").EnsureSuccess().StandardOutput)!["status"]!.GetValue<string>());
            Call("pause").EnsureSuccess();
            Call("resume").EnsureSuccess();
        }
        finally
        {
            bomb.StandardInput.Close();
            bomb.WaitForExit();
        }

        Assert.Equal((0, "done\n"), (Exec(container) is var done ? done.ExitCode : -1, done.StandardOutput));

        CommandResult Call(string command) => Shell.Run(Installation.Runtime, "--root", container.Root, command, container.Id);
        int Number(string file) => int.Parse(File.ReadAllText($"{cgroup}/{file}"), CultureInfo.InvariantCulture);
    }

    private static CommandResult Exec(Container container) => Shell.Run(Installation.Runtime, "--root", container.Root, "exec", container.Id, "echo", "done");
}
