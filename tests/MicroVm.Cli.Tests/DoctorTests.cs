using MicroVm.Cli.Doctor;
using MicroVm.Sandbox.Configuration;

namespace MicroVm.Cli.Tests;

/// <summary>What <c>doctor</c> says of engines and of the configuration.</summary>
public sealed class DoctorTests
{
    [Theory]
    [InlineData(null, "not set up: microvm install docker, or {\"runtimes\": {\"microvm\": {\"path\": \"/bin/microvm\"}}}")]
    [InlineData("{}", "not set up")]
    [InlineData("[]", "not set up")]
    [InlineData("{\"runtimes\": []}", "not set up")]
    [InlineData("{\"runtimes\": {\"r\": {\"path\": \"/usr/bin/runc\"}, \"s\": 1, \"t\": {\"path\": 2}}}", "not set up")]
    [InlineData("{\n\"runtimes\": ", "is not valid JSON (line 2)")]
    [InlineData("{\"runtimes\": {\"vm\": {\"path\": \"/opt/microvm\", \"runtimeArgs\": [\"--vm-memory\", \"512\"]}, \"b\": {\"path\": \"/bin/microvm\"}}}", "has runtime vm with --vm-memory 512, b")]
    public void RuntimesOfDockerAreFound(string? json, string expected) =>
        Assert.Contains(expected, EngineChecks.DockerRuntimes(json, "/bin/microvm"), StringComparison.Ordinal);

    [Theory]
    [InlineData(null, "not set up in F: do")]
    [InlineData("# microvm = [\"/bin/microvm\"]\n", "not set up in F: do")]
    [InlineData("[engine.runtimes]\nmicrovm = [\"/bin/microvm\"]\n", "F names microvm")]
    public void ALineThatNamesTheRuntimeIsFound(string? text, string expected) => Assert.Equal(expected, EngineChecks.Mentions(text, "F", "do"));

    [Fact]
    public void EveryValueInForceIsShown()
    {
        RuntimeConfiguration configuration = new()
        {
            Path = "/f",
            MemoryMiB = 700,
            Vcpus = 3,
            MaxVcpus = 5,
            CpuTemplate = "x86-64-v2",
            Kernel = "/k",
            KernelArguments = "a=1",
            StartTimeoutSeconds = 9,
            PrivateImages = true,
            Template = true,
            AllowedAnnotations = ["dev.microvm.memory"],
        };
        string text = string.Join('\n', ConfigurationChecks.All(configuration).Select(f => $"{f.Subject.Trim()}: {f.Detail}"));
        Assert.Equal(
            """
            configuration: /f
            memory: 700 MiB for a container without a limit
            vcpus: 3 for a container without a CPU quota
            max-vcpus: 5 while a VM runs, where limits of its containers ask for them
            cpu-template: x86-64-v2
            kernel: /k
            kernel-args: a=1
            start-timeout: 9 s for each step of a start
            private-images: yes: each VM has copies of its own
            template: yes: VMs start from a template where one fits
            allowed-annotations: dev.microvm.memory
            """, text);
    }

    [Fact]
    public void TheHostsIsolationIsLookedAt()
    {
        Finding[] findings = [.. IsolationChecks.All()];
        Assert.Equal(["SMT", "speculation", "KSM", "swap", "AppArmor", "SELinux"], findings.Select(f => f.Subject));
        Assert.DoesNotContain(findings, f => f.State == FindingState.Missing || f.Detail.Length == 0);
    }
}
