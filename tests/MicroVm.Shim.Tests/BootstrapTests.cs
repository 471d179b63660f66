using Google.Protobuf;
using Google.Protobuf.WellKnownTypes;
using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Sandbox;
using MicroVm.Shim.Api;
using MicroVm.Shim.Bootstrap;
using MicroVm.Shim.Tests.Support;

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
        using TempFolder root = new();
        Spec spec = new() { OciVersion = "1.0.2" };
        Grouping of(string id) => Grouping.Of(spec, id, root.Path);
        Assert.Equal(new Grouping("box", false), of("box"));
        spec.Annotations = new() { ["io.kubernetes.cri.container-type"] = "sandbox", ["io.kubernetes.cri.sandbox-id"] = "pod" };
        Assert.Equal(new Grouping("pod", false), of("pod"));
        spec.Annotations["io.kubernetes.cri.container-type"] = "container";
        Assert.Equal(new Grouping("pod", true), of("box"));
        spec.Annotations["io.kubernetes.cri.sandbox-id"] = "../pod";
        Assert.Throws<SpecException>(() => of("box"));
        spec.Annotations = new() { ["io.kubernetes.cri-o.ContainerType"] = "container", ["io.kubernetes.cri-o.SandboxID"] = "pod" };
        Assert.Equal(new Grouping("pod", true), of("box"));
    }

    [Fact]
    public void AContainerThatSharesANamespaceBelongsToTheShimOfTheVmsFirst()
    {
        using TempFolder root = new();
        Sandbox.State.ContainerStore store = new(root.Path);
        foreach ((string id, int day) in (ReadOnlySpan<(string, int)>)[("later", 2), ("first", 1)])
        {
            Sandbox.State.ProcessIdentity own = Sandbox.State.ProcessIdentity.Current;
            store.Create(new Sandbox.State.ContainerState
            {
                OciVersion = "1.0.2",
                Id = id,
                Bundle = "/b",
                Rootfs = "/b/rootfs",
                Created = DateTimeOffset.UnixEpoch.AddDays(day),
                Owner = 0,
                Init = own,
                Sandbox = own,
                Vmm = own,
                VmFolder = "vm",
                Status = Sandbox.State.ContainerStatus.Running,
            });
        }

        Spec spec = new() { OciVersion = "1.0.2", Linux = new() { Namespaces = [new() { Type = "network", Path = $"/proc/{Environment.ProcessId}/ns/net" }] } };
        Assert.Equal(new Grouping("first", true), Grouping.Of(spec, "box", root.Path));
        spec.Linux!.Namespaces![0] = new() { Type = "network", Path = "/run/netns/another" };
        Assert.Equal(new Grouping("box", false), Grouping.Of(spec, "box", root.Path));
    }

    [Fact]
    public void InfoHasTheFeaturesDocument()
    {
        RuntimeInfo info = InfoCommand.Info();
        Assert.Equal("io.containerd.microvm.v2", info.Name);
        Assert.Contains("\"ociVersionMax\"", info.Features.Value.ToStringUtf8(), StringComparison.Ordinal);
    }
}
