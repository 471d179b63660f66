using Google.Protobuf;
using Google.Protobuf.WellKnownTypes;
using MicroVm.Oci;
using MicroVm.Sandbox;
using MicroVm.Shim.Api;
using MicroVm.Shim.Bootstrap;

namespace MicroVm.Shim.Tests;

/// <summary>What a shim is told at its start, and what it answers.</summary>
public sealed class BootstrapTests
{
    private static readonly ShimArguments Arguments = ShimArguments.Parse(["-namespace", "default", "-address", "/run/containerd/containerd.sock", "-publish-binary", "/usr/bin/containerd", "-id", "box", "-debug", "start"]);

    [Fact]
    public void FlagsAreReadAsContainerdGivesThem()
    {
        Assert.Equal((ShimAction.Start, "default", "box", "/run/containerd/containerd.sock", true), (Arguments.Action, Arguments.Namespace, Arguments.Id, Arguments.Address, Arguments.Debug));
        ShimArguments delete = ShimArguments.Parse(["--namespace=k8s.io", "-id=box", "-bundle", "/b", "delete"]);
        Assert.Equal((ShimAction.Delete, "k8s.io", "/b", false), (delete.Action, delete.Namespace, delete.Bundle, delete.Debug));
        Assert.Equal(ShimAction.Version, ShimArguments.Parse(["-v"]).Action);
        Assert.Equal(ShimAction.Info, ShimArguments.Parse(["-info"]).Action);
    }

    [Theory]
    [InlineData("-nonsense")]
    [InlineData("restart")]
    [InlineData("-id")]
    public void UnknownFlagsAndActionsAreRefused(string word) =>
        Assert.Throws<SandboxException>(() => ShimArguments.Parse(["-namespace", "n", "-id", "i", word]));

    [Theory]
    [InlineData("../..", "box")]
    [InlineData("default", "../etc")]
    public void NamesThatLeadElsewhereAreRefused(string ns, string id) =>
        Assert.Throws<SpecException>(() => ShimArguments.Parse(["-namespace", ns, "-id", id, "delete"]));

    [Fact]
    public void TheAnswerIsTextUnlessParametersWereGiven()
    {
        Any options = new() { TypeUrl = "runtimeoptions.v1.Options", Value = new Options { ConfigPath = "/x" }.ToByteString() };
        Assert.Null(BootstrapInput.Read([], Arguments));
        Assert.Null(BootstrapInput.Read(options.ToByteArray(), Arguments));
        Assert.Null(BootstrapInput.Read([0xff, 0xff], Arguments));
        Assert.Equal("unix:///s"u8.ToArray(), BootstrapInput.Answer(null, "unix:///s"));

        BootstrapParams given = new() { InstanceId = "box", Namespace = "default", ContainerdVersion = "2.3.0", LogLevel = -4 };
        BootstrapParams? read = BootstrapInput.Read(given.ToByteArray(), Arguments);
        Assert.Equal(given, read);
        BootstrapResult result = BootstrapResult.Parser.ParseFrom(BootstrapInput.Answer(read, "unix:///s"));
        Assert.Equal((2, "unix:///s", "ttrpc"), (result.Version, result.Address, result.Protocol));
    }

    [Fact]
    public void TheSocketsNameFollowsContainerdsRule()
    {
        // printf '%s' /run/containerd/containerd.sock/default/box | sha256sum
        ShimSocket socket = ShimSocket.Of("/run/containerd/containerd.sock", "default", "box");
        Assert.Equal("unix:///run/containerd/s/b6933325e7796c00f7def06680d4441edceafe6e24835729fba201193a7a8bf1", socket.Address);
    }

    [Fact]
    public void AContainerOfAPodBelongsToItsSandboxsShim()
    {
        Assert.Equal(new Grouping("box", false), Grouping.Of(null, "box"));
        Dictionary<string, string> sandbox = new() { ["io.kubernetes.cri.container-type"] = "sandbox", ["io.kubernetes.cri.sandbox-id"] = "pod" };
        Assert.Equal(new Grouping("pod", false), Grouping.Of(sandbox, "pod"));
        Dictionary<string, string> container = new() { ["io.kubernetes.cri.container-type"] = "container", ["io.kubernetes.cri.sandbox-id"] = "pod" };
        Assert.Equal(new Grouping("pod", true), Grouping.Of(container, "box"));
        container["io.kubernetes.cri.sandbox-id"] = "../pod";
        Assert.Throws<SpecException>(() => Grouping.Of(container, "box"));
    }

    [Fact]
    public void InfoHasTheFeaturesDocument()
    {
        RuntimeInfo info = InfoCommand.Info();
        Assert.Equal("io.containerd.microvm.v2", info.Name);
        Assert.Contains("\"ociVersionMax\"", info.Features.Value.ToStringUtf8(), StringComparison.Ordinal);
    }
}
