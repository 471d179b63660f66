using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>What the administrator of a host decides: the configuration file, global flags, allowed annotations, images for each VM.</summary>
public sealed class ConfigurationTests
{
    [SkippableFact]
    public void AnnotationsThatShapeTheVmAreRefusedUnlessAllowed()
    {
        Installation.RequireKvm();
        foreach (string name in (string[])["memory", "vcpus", "kernel-args", "cpu-template"])
        {
            using Bundle bundle = Bundle.Create("true");
            bundle.Config["annotations"] = new JsonObject { [$"dev.microvm.{name}"] = "200" };
            CommandResult refused = Container.Run(bundle);
            Assert.True(refused.ExitCode == 1, refused.ToString());
            Assert.Contains($"annotation dev.microvm.{name} is not allowed on this host", refused.StandardError, StringComparison.Ordinal);
        }

        string[] listed = [.. JsonNode.Parse(Shell.Run(Installation.Runtime, "features").EnsureSuccess().StandardOutput)!["potentiallyUnsafeConfigAnnotations"]!
            .AsArray().Select(n => (string)n!)];
        Assert.Equal(["dev.microvm.cpu-template", "dev.microvm.host-sockets", "dev.microvm.kernel-args", "dev.microvm.memory", "dev.microvm.vcpus"], listed.Order());
    }

    [SkippableFact]
    public void TheFileAndTheFlagsDecide()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("grep MemTotal /proc/meminfo; cat /proc/cmdline");
        bundle.Config["annotations"] = new JsonObject { ["dev.microvm.kernel-args"] = "quux=18" };
        string file = Path.Combine(bundle.Path, "microvm.toml");
        File.WriteAllText(file, "memory = 300 # MiB\nkernel-args = 'quux=17'\nallowed-annotations = [\"dev.microvm.kernel-args\"]\n");
        CommandResult configured = Container.RunWith(["--config", file], bundle);
        Assert.True(configured.ExitCode == 0, configured.ToString());
        Assert.InRange(MemoryMiB(configured), 240, 300);
        Assert.Contains("quux=18 quux=17", configured.StandardOutput, StringComparison.Ordinal);
        CommandResult flagged = Container.RunWith(["--config", file, "--vm-memory", "200"], bundle);
        Assert.True(flagged.ExitCode == 0, flagged.ToString());
        Assert.InRange(MemoryMiB(flagged), 140, 200);
        CommandResult none = Container.RunWith(["--config", file, "--allow-annotations", "dev.microvm.memory"], bundle);
        Assert.True(none.ExitCode == 1, none.ToString());
        Assert.Contains("annotation dev.microvm.kernel-args is not allowed", none.StandardError, StringComparison.Ordinal);

        string doctor = Shell.Run(Installation.Runtime, "--config", file, "--vcpus", "3", "doctor").StandardOutput;
        Assert.Matches($@"configuration +{file}\n", doctor);
        Assert.Matches(@"memory +300 MiB for a container without a limit\n", doctor);
        Assert.Matches(@"vcpus +3 for a container without a CPU quota\n", doctor);
        File.AppendAllText(file, "colour = 1\n");
        CommandResult wrong = Container.RunWith(["--config", file], bundle);
        Assert.Contains($"{file}, line 4: unknown key colour", wrong.StandardError, StringComparison.Ordinal);
    }

    [SkippableTheory]
    [InlineData(false)]
    [InlineData(true)]
    public void APrivateVmSharesNoPageOfKernelAndAgent(bool isPrivate)
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("sleep 1000");
        using DetachedContainer c = new(bundle);
        bundle.Save();
        c.Leave([.. (string[])(isPrivate ? ["--private-images"] : []), "create", "--bundle", bundle.Path, "--pid-file", c["pid"], c.Id]).EnsureSuccess();
        int vmm = c.Vmm;
        string[] images = [.. File.ReadLines($"/proc/{vmm}/maps").Where(l => l.Contains("agent.img", StringComparison.Ordinal))];
        Assert.NotEmpty(images);
        Assert.All(images, l => Assert.Equal(isPrivate, l.Contains("/memfd:agent.img", StringComparison.Ordinal)));
        Assert.DoesNotContain(File.ReadLines($"/proc/{vmm}/maps"), l => isPrivate && l.Contains("vmlinux", StringComparison.Ordinal) && !l.Contains("/memfd:", StringComparison.Ordinal));
        c.Call("start").EnsureSuccess();
        Assert.Equal("3\n", c.Raw("exec", c.Id, "echo", "3").EnsureSuccess().StandardOutput);
    }

    private static int MemoryMiB(CommandResult result) =>
        int.Parse(result.StandardOutput.Split(' ', StringSplitOptions.RemoveEmptyEntries)[1], System.Globalization.CultureInfo.InvariantCulture) >> 10;
}
