using System.Globalization;
using MicroVm.Json;
using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Sandbox.Pods;
using MicroVm.Sandbox.State;

namespace MicroVm.Sandbox.Tests.Pods;

/// <summary>Which VM a bundle's namespaces and annotations lead to.</summary>
public sealed class SandboxFinderTests : IDisposable
{
    private readonly TempFolder _folder = new();
    private readonly ContainerStore _store;
    private readonly System.Diagnostics.Process _other = System.Diagnostics.Process.Start("sleep", "1000");

    public SandboxFinderTests()
    {
        _store = new ContainerStore(_folder["root"]);
        Add("one", ProcessIdentity.Current, ProcessIdentity.Current);
        Add("two", ProcessIdentity.Of(_other.Id)!, ProcessIdentity.Of(_other.Id)!);
    }

    [Fact]
    public void ABundleWithoutPathsHasAVmOfItsOwn()
    {
        Assert.Null(SandboxFinder.Find(Spec(("network", null), ("ipc", null)), _store));
        Assert.Null(SandboxFinder.Find(Spec(("network", "/run/netns/no-such")), _store));
    }

    [Fact]
    public void APathOfAContainersProcessLeadsToItsVm()
    {
        JoinTarget target = SandboxFinder.Find(Spec(("network", Path("net")), ("ipc", Path("ipc")), ("uts", null), ("pid", $"/proc/{Environment.ProcessId}/task/{Environment.ProcessId}/ns/pid")), _store)!;
        Assert.Equal(("one", true), (target.Member.Id, target.SharesNetwork));
        Assert.Equal([("ipc", "one"), ("pid", "one")], target.Joins.Select(j => (j.Key, j.Value)).Order());
    }

    [Fact]
    public void AVmmStandsForTheFirstContainerOfItsVm()
    {
        using System.Diagnostics.Process vmm = System.Diagnostics.Process.Start("sleep", "1000");
        Add("app", ProcessIdentity.Current, ProcessIdentity.Current, ProcessIdentity.Of(vmm.Id), 1);
        Add("pause", ProcessIdentity.Current, ProcessIdentity.Current, ProcessIdentity.Of(vmm.Id), 0);
        JoinTarget target = SandboxFinder.Find(Spec(("network", Path("net", vmm.Id)), ("ipc", Path("ipc", vmm.Id)), ("pid", Path("pid", vmm.Id))), _store)!;
        Assert.Equal(("pause", true), (target.Member.Id, target.SharesNetwork));
        Assert.Equal([("ipc", "pause"), ("pid", "pause")], target.Joins.Select(j => (j.Key, j.Value)).Order());
        vmm.Kill();
        vmm.WaitForExit();
    }

    [Fact]
    public void ANetworkOfItsOwnIsOneWithinTheGuest() => Assert.False(SandboxFinder.Find(Spec(("network", null), ("ipc", Path("ipc"))), _store)!.SharesNetwork);

    [Theory]
    [InlineData("io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID")]
    [InlineData("io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id")]
    public void AnnotationsNameTheSandbox(string type, string id)
    {
        Spec spec = Spec(("network", Path("net")));
        spec.Annotations = new() { [type] = "container", [id] = "two" };
        string message = Assert.Throws<SandboxException>(() => SandboxFinder.Find(spec, _store)).Message;
        Assert.Contains("container one's", message, StringComparison.Ordinal);
        Assert.Contains("sandbox two", message, StringComparison.Ordinal);
        spec.Annotations[id] = "one";
        Assert.Equal("one", SandboxFinder.Find(spec, _store)!.Member.Id);
        spec = Spec(("ipc", null));
        spec.Annotations = new() { [type] = "sandbox", [id] = "one" };
        Assert.Null(SandboxFinder.Find(spec, _store));
    }

    [Fact]
    public void WhatCannotBeJoinedIsNamed()
    {
        string message = Assert.Throws<SandboxException>(() => SandboxFinder.Find(Spec(("network", Path("net")), ("ipc", Path("ipc", _other.Id))), _store)).Message;
        Assert.Contains("container one's", message, StringComparison.Ordinal);
        Assert.Contains("container two's", message, StringComparison.Ordinal);
        Assert.Contains(
            "the host's own", Assert.Throws<SpecException>(() => SandboxFinder.Find(Spec(("ipc", "/proc/self/ns/ipc")), _store)).Message, StringComparison.Ordinal);
        Assert.Contains(
            "no such file", Assert.Throws<SandboxException>(() => SandboxFinder.Find(Spec(("uts", "/no/such")), _store)).Message, StringComparison.Ordinal);
        message = Assert.Throws<SandboxException>(() => SandboxFinder.Find(Spec(("network", "/dev/null"), ("ipc", Path("ipc"))), _store)).Message;
        Assert.Contains("/dev/null", message, StringComparison.Ordinal);
        Assert.Contains("container one", message, StringComparison.Ordinal);
    }

    [Fact]
    public void ARequestToJoinIsReadAsItWasWritten()
    {
        JoinRequest request = new()
        {
            Request = new() { Root = "/r", Id = "i", Bundle = "/b", ConsoleSocket = "/c" },
            State = _store.Get("one"),
            UnifiedMount = "/sys/fs/cgroup",
            Sockets = ["/run/one.sock"],
        };
        request.Exports.Add(new JoinExport { Name = "a.rootfs", ReadOnly = true });
        request.Exports.Add(new JoinExport { Name = "a.mount1", IsFile = true, HasTree = true, ReadOnlyBelow = true, HidesMounts = true, ShowsSockets = true });
        JoinRequest read = JsonRecords.Read<JoinRequest>(JsonRecords.Write(request));
        Assert.Equal(request.Exports, read.Exports);
        Assert.Equal(request.Sockets, read.Sockets);
        Assert.Equal(("/sys/fs/cgroup", "/c", "one"), (read.UnifiedMount, read.Request.ConsoleSocket, read.State.Id));
    }

    public void Dispose()
    {
        _other.Kill();
        _other.WaitForExit();
        _other.Dispose();
        _folder.Dispose();
    }

    private static string Path(string file, int? pid = null) => string.Create(CultureInfo.InvariantCulture, $"/proc/{pid ?? Environment.ProcessId}/ns/{file}");

    private static Spec Spec(params (string Type, string? Path)[] namespaces) =>
        new() { Linux = new() { Namespaces = [.. namespaces.Select(n => new Namespace { Type = n.Type, Path = n.Path })] } };

    private void Add(string id, ProcessIdentity init, ProcessIdentity sandbox, ProcessIdentity? vmm = null, int day = 0) => _store.Create(new ContainerState
    {
        OciVersion = "1.0.2",
        Id = id,
        Bundle = "/b",
        Rootfs = "/b/rootfs",
        Created = DateTimeOffset.UnixEpoch.AddDays(day),
        Owner = 0,
        Init = init,
        Sandbox = sandbox,
        Vmm = vmm ?? sandbox,
        VmFolder = id,
        Status = ContainerStatus.Running,
    });
}
