using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>Bad input gets one error that names the thing, a non-zero exit, and leaves nothing behind.</summary>
public sealed class BadInputTests
{
    [SkippableFact]
    public void MissingConfigIsNamed()
    {
        using Bundle bundle = Prepare();
        File.Delete(Path.Combine(bundle.Path, "config.json"));
        Fails(bundle, "config.json");
    }

    [SkippableTheory]
    [InlineData("{", "config.json")]
    [InlineData("""{"ociVersion":"1.0.2","root":{"path":7}}""", "root.path")]
    [InlineData("""{"ociVersion":"2.0.0","root":{"path":"rootfs"},"process":{"args":["/bin/sh"],"cwd":"/"}}""", "2.0.0")]
    [InlineData("""{"ociVersion":"1.0.2","root":{"path":"rootfs"},"process":{"args":[],"cwd":"/"}}""", "args")]
    public void MalformedConfigIsNamed(string config, string named)
    {
        Installation.RequireKvm();
        using Bundle bundle = Prepare();
        File.WriteAllText(Path.Combine(bundle.Path, "config.json"), config);
        Fails(bundle, named);
    }

    [SkippableFact]
    public void MissingRootfsIsNamed()
    {
        using Bundle bundle = Prepare();
        bundle.Config["root"]!["path"] = "no-such-rootfs";
        bundle.Save();
        Fails(bundle, "no-such-rootfs");
    }

    [SkippableFact]
    public void UnreadableKernelIsNamed()
    {
        Installation.RequireKvm();
        using Bundle bundle = Prepare();
        Fails(bundle, "/no/such/kernel", "--kernel", "/no/such/kernel");
    }

    [SkippableFact]
    public void FileThatIsNoKernelIsNamed()
    {
        Installation.RequireKvm();
        using Bundle bundle = Prepare();
        Fails(bundle, "kernel", "--kernel", Path.Combine(bundle.Path, "config.json"));
    }

    [SkippableFact]
    public void TooLittleMemoryIsNamed()
    {
        Installation.RequireKvm();
        using Bundle bundle = Prepare();
        Fails(bundle, "memory", "--vm-memory", "8");
    }

    [SkippableFact]
    public void UnknownCpuTemplateIsNamed()
    {
        Installation.RequireKvm();
        using Bundle bundle = Prepare();
        Fails(bundle, "x86-64-v9", "--cpu-template", "x86-64-v9");
    }

    [SkippableFact]
    public void MissingProgramIsNamed()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("no-such-program", "argument");
        bundle.Save();

        // As in runc's log lines, quotes within the message are escaped.
        Fails(bundle, """exec: \"no-such-program\": executable file not found in $PATH""");
    }

    [SkippableFact]
    public void UsedIdIsRefused()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("echo ready; sleep 1000");
        using Container container = Container.Start(bundle);
        container.WaitForOutput("ready");
        CommandResult second = Shell.Run(Installation.Runtime, "--root", container.Root, "run", "--bundle", bundle.Path, container.Id);
        Assert.Equal(1, second.ExitCode);
        Assert.Contains("already exists", second.StandardError, StringComparison.Ordinal);
        Assert.False(container.Process.HasExited);
    }

    private static Bundle Prepare()
    {
        Installation.RequireRuntime();
        Bundle bundle = Bundle.Create("echo must not run");
        bundle.Save();
        return bundle;
    }

    private static void Fails(Bundle bundle, string named, params string[] flags)
    {
        string root = Directory.CreateTempSubdirectory("microvm-root-").FullName;
        try
        {
            CommandResult result = Shell.Run(Installation.Runtime, ["--root", root, "run", "--bundle", bundle.Path, .. flags, "bad"]);
            Assert.True(result.ExitCode == 1, result.ToString());
            Assert.Contains(named, result.StandardError, StringComparison.Ordinal);
            Assert.DoesNotContain("   at ", result.StandardError, StringComparison.Ordinal);
            Assert.Single(result.StandardError.Split('\n', StringSplitOptions.RemoveEmptyEntries));
            Assert.Equal("", result.StandardOutput);
            Assert.Empty(Directory.EnumerateFileSystemEntries(root));
        }
        finally
        {
            Directory.Delete(root, recursive: true);
        }
    }
}
