using MicroVm.Cli.Install;
using MicroVm.Sandbox;

namespace MicroVm.Cli.Tests;

/// <summary>What <c>microvm install</c> makes of engines' configuration files.</summary>
public sealed class InstallTests
{
    private const string Program = "/usr/local/bin/microvm";

    [Theory]
    [InlineData("containerd")]
    [InlineData("crio")]
    [InlineData("docker")]
    [InlineData("podman")]
    public void ANewFileIsWrittenOnceAndTakenAwayWhole(string engine)
    {
        EngineSetup setup = InstallCommand.SetupOf(engine);
        string text = setup.With(null, Program);
        Assert.Contains("microvm", text, StringComparison.Ordinal);
        Assert.EndsWith("\n", text, StringComparison.Ordinal);
        Assert.Equal(text, setup.With(text, Program));
        Assert.Null(setup.Without(text));
    }

    [Fact]
    public void AnUnknownEngineIsRefused() =>
        Assert.Equal("engine \"rkt\" is not known: containerd, crio, docker or podman", Assert.Throws<SandboxException>(() => InstallCommand.SetupOf("rkt")).Message);

    [Theory]
    [InlineData("version = 2\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\".cni]\n    bin_dir = \"/x\"\n", "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.microvm]")]
    [InlineData("disabled_plugins = []\n", "[plugins.cri.containerd.runtimes.microvm]")]
    [InlineData("# version = 2\nversion = 3 # of containerd 2\n", "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.microvm]")]
    public void ContainerdsOwnLinesStay(string others, string table)
    {
        EngineSetup setup = InstallCommand.SetupOf("containerd");
        string text = setup.With(others, Program);
        Assert.StartsWith(others + "# BEGIN microvm", text, StringComparison.Ordinal);
        Assert.Contains($"\n{table}\n  runtime_type = \"io.containerd.microvm.v2\"\n  pod_annotations", text, StringComparison.Ordinal);
        Assert.Equal(text, setup.With(text, Program));
        Assert.Equal(others, setup.Without(text));

        // Runtimes of the file replace containerd's own: runc stays a runtime.
        Assert.Contains(".containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n", text, StringComparison.Ordinal);
        string other = table.Replace("microvm", "other", StringComparison.Ordinal);
        Assert.DoesNotContain("runtimes.runc", setup.With($"{others}{other}\n", Program), StringComparison.Ordinal);

        // What is added behind it stays, too, and another path of the program changes the block alone.
        string behind = text + "[debug]\n  level = \"info\"\n";
        string moved = setup.With(behind, "/opt/microvm/bin/microvm");
        Assert.Contains("\n  runtime_path = \"/opt/microvm/bin/containerd-shim-microvm-v2\"\n", moved, StringComparison.Ordinal);
        Assert.Equal(others + "[debug]\n  level = \"info\"\n", setup.Without(moved));
    }

    [Fact]
    public void AFileOfItsOwnKeepsItsVersionWhenSomebodyAddsToIt()
    {
        EngineSetup setup = InstallCommand.SetupOf("containerd");
        string text = setup.With(null, Program) + "[debug]\n  level = \"info\"\n";
        Assert.Contains("\nversion = 2\n[plugins.\"io.containerd.grpc.v1.cri\"", text, StringComparison.Ordinal);
        Assert.Equal(text, setup.With(text, Program));
    }

    [Theory]
    [InlineData("[plugins.cri.containerd.runtimes.microvm]\n", "there is a runtime microvm")]
    [InlineData("version = 2\n  [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.\"microvm\"] # ours\n", "there is a runtime microvm")]
    [InlineData("version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\nruntimes = { runc = {} }\n", "runtimes is an inline table")]
    [InlineData("version = 7\n", "the version of its format is not known")]
    [InlineData("# BEGIN microvm: written by \"microvm install\"\n", "the line \"# END microvm\" is missing")]
    public void WhatIsInContainerdsWayIsNamed(string text, string expected) => Refused("containerd", text, expected);

    [Theory]
    [InlineData("crio")]
    [InlineData("podman")]
    public void AFileOfSomebodyElseIsLeftAlone(string engine)
    {
        Refused(engine, "# mine\n", "was not written by \"microvm install\"");
        Assert.Throws<SandboxException>(() => InstallCommand.SetupOf(engine).Without("# mine\n"));
    }

    [Fact]
    public void DockersOtherMembersStay()
    {
        EngineSetup setup = InstallCommand.SetupOf("docker");
        const string others = """
            {
              "data-root": "/dätä+",
              "runtimes": {
                "other": {
                  "path": "/o"
                }
              },
              "max-concurrent-downloads": 3
            }

            """;
        string text = setup.With(others, Program);
        Assert.Equal(
            others.Replace("    }\n  },", "    },\n    \"microvm\": {\n      \"path\": \"" + Program + "\"\n    }\n  },", StringComparison.Ordinal), text);
        Assert.Equal(text, setup.With(text, Program));
        Assert.Equal(others, setup.Without(text));
        Assert.Equal("{}", setup.Without("{}"));
        Assert.Contains("\"log-driver\": \"none\"", setup.With("{\"log-driver\": \"none\"}", Program), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("{\"runtimes\": {\"microvm\": {\"path\": \"/elsewhere\"}}}", "the runtime microvm is set up otherwise")]
    [InlineData("{\"runtimes\": []}", "\"runtimes\" is not an object")]
    [InlineData("[]", "it is not an object")]
    [InlineData("{\n\"a\": ", "it is not valid JSON (line 2)")]
    public void WhatIsInDockersWayIsNamed(string text, string expected) => Refused("docker", text, expected);

    [Theory]
    [InlineData("{\"runtimes\": {\"microvm\": {\"path\": \"/usr/bin/runc\"}}}", "is another program: /usr/bin/runc")]
    [InlineData("{\"default-runtime\": \"microvm\", \"runtimes\": {\"microvm\": {\"path\": \"/usr/local/bin/microvm\"}}}", "\"default-runtime\" is microvm: change it first")]
    public void DockersRuntimeIsNotTakenAwayWhere(string text, string expected) =>
        Assert.Contains(expected, Assert.Throws<SandboxException>(() => InstallCommand.SetupOf("docker").Without(text)).Message, StringComparison.Ordinal);

    private static void Refused(string engine, string text, string expected)
    {
        EngineSetup setup = InstallCommand.SetupOf(engine);
        string message = Assert.Throws<SandboxException>(() => setup.With(text, Program)).Message;
        Assert.StartsWith(setup.File + ": ", message, StringComparison.Ordinal);
        Assert.Contains(expected, message, StringComparison.Ordinal);
    }
}
