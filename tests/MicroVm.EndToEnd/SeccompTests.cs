using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>Seccomp profiles that refuse what a process's set-up calls: its start needs nothing of them but execve.</summary>
public sealed class SeccompTests
{
    [SkippableTheory]
    [InlineData("close_range", false)]
    [InlineData("capset", false)]
    [InlineData("setresuid", true)]
    [InlineData("prctl", true)]
    [InlineData("fcntl", false)]
    public void AProfileMayRefuseWhatTheSetUpCalls(string call, bool noNewPrivileges)
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("sleep 1000");
        bundle.Process["noNewPrivileges"] = noNewPrivileges;
        bundle.Process["user"] = JsonNode.Parse("""{"uid":1000,"gid":1000}""");
        bundle.Process["args"] = new JsonArray("/bin/busybox", "sh", "-c", "echo started; read line; exit 42");
        bundle.Linux["seccomp"] = JsonNode.Parse($$"""{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["{{call}}"],"action":"SCMP_ACT_ERRNO"}]}""");
        using Container container = Container.Start(bundle);
        container.WaitForOutput("started");
        CommandResult exec = Shell.Run(Installation.Runtime, "--root", container.Root, "exec", container.Id, "/bin/busybox", "grep", "-E", "Seccomp:|CapPrm", "/proc/self/status");
        Assert.True(exec.ExitCode == 0, exec.ToString());
        Assert.Contains("Seccomp:\t2", exec.StandardOutput, StringComparison.Ordinal);
        Assert.Contains("CapPrm:\t0000000000000000", exec.StandardOutput, StringComparison.Ordinal);
        container.Process.StandardInput.Close();
        Assert.Equal(42, container.Wait().ExitCode);
    }
}
