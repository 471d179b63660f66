using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>What other users of the host, an environment or a bundle's files prepare for the runtime.</summary>
public sealed class HostTrapTests
{
    [SkippableFact]
    public void ThePidFileFollowsNoLink()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("sleep 1000");
        using DetachedContainer c = new(bundle);
        File.WriteAllText(c["victim"], "precious");
        File.CreateSymbolicLink(c[".pid"], c["victim"]);
        CommandResult create = c.Create();
        Assert.Equal("precious", File.ReadAllText(c["victim"]));

        // runc refuses to create it, this runtime takes the link away.
        if (create.ExitCode == 0)
        {
            Assert.Null(new FileInfo(c["pid"]).LinkTarget);
            Assert.True(c.Pid > 0);
        }
    }

    [SkippableFact]
    public void TheEnvironmentMakesNoCallAContainersProcess()
    {
        Installation.RequireKvm();
        string version = Shell.Run(Installation.Runtime, "--version").EnsureSuccess().StandardOutput;
        foreach (string descriptors in (string[])["", "3</dev/zero 4</dev/zero 5</dev/zero", "3<&- 4<&-"])
        {
            CommandResult result = Shell.Run("sh", "-c", $"MICROVM_PROXY=some exec {Installation.Runtime} --version {descriptors}");
            Assert.Equal((0, version), (result.ExitCode, result.StandardOutput));
        }

        using Bundle bundle = Bundle.Create("echo ran");
        bundle.Save();
        using DetachedContainer c = new(bundle);
        CommandResult run = Shell.Run("sh", "-c", $"MICROVM_PROXY=other exec {Installation.Runtime} --root {c.Root} run --bundle {bundle.Path} {c.Id}");
        Assert.Equal((0, "ran\n"), (run.ExitCode, run.StandardOutput));
    }

    [SkippableFact]
    public void AFifoInPlaceOfPasswdIsNotOpened()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("echo $HOME");
        File.Delete(Path.Combine(bundle.Rootfs, "etc/passwd"));
        Shell.Run("mkfifo", Path.Combine(bundle.Rootfs, "etc/passwd")).EnsureSuccess();
        bundle.Process["env"] = new JsonArray("PATH=/bin");
        Skip.IfNot(Installation.IsMicroVm, "runc opens it");
        CommandResult result = Container.Run(bundle);
        Assert.Equal((0, "/\n"), (result.ExitCode, result.StandardOutput));
    }

    [SkippableFact]
    public void AnotherUserIsToldInOneLine()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("true");
        using DetachedContainer c = new(bundle);
        Directory.CreateDirectory(c.Root, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        File.SetUnixFileMode(c.Folder, (UnixFileMode)0b111_101_101);
        CommandResult result = Shell.Run("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", Installation.Runtime, "--root", c.Root, "list");
        Skip.If(result.StandardError.StartsWith("setpriv", StringComparison.Ordinal), "the build's output cannot be executed by other users");
        Assert.Equal(1, result.ExitCode);
        Assert.Contains("permission denied; its containers belong to another user, use sudo", result.StandardError, StringComparison.Ordinal);
        Assert.Single(result.StandardError.Split('\n', StringSplitOptions.RemoveEmptyEntries));
    }
}
