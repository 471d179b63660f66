using System.Diagnostics;
using MicroVm.Oci;
using MicroVm.Sandbox.State;

namespace MicroVm.Sandbox.Tests;

/// <summary>State folders: used ids, what a crash left, races.</summary>
public sealed class StoreTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void StateIsKeptAndForgotten()
    {
        ContainerStore store = new(_folder["a/b/root"]);
        ContainerState state = State("one");
        store.Create(state);
        Assert.Equal(state.Init, store.Find("one")!.Init);
        store.Update(state with { Status = ContainerStatus.Running, Annotations = new() { ["k"] = "v" } });
        Assert.Equal(ContainerStatus.Running, store.Find("one")!.Status);
        Assert.Equal("v", store.Find("one")!.Annotations!["k"]);
        store.Delete(state with { Init = new ProcessIdentity(int.MaxValue, 1) });
        Assert.NotNull(store.Find("one"));
        store.Delete(state);
        Assert.Null(store.Find("one"));
        Assert.Empty(Directory.EnumerateFileSystemEntries(_folder["a/b/root"]));
    }

    [Fact]
    public void AStateOfAnotherVersionIsRefusedAndNamed()
    {
        ContainerStore store = new(_folder.Path);
        ContainerState state = State("one");
        store.Create(state);
        store.Create(State("two"));
        string file = Path.Combine(store.FolderOf("one"), "state.json");
        File.WriteAllText(file, File.ReadAllText(file).Replace("\"formatVersion\":1", "\"formatVersion\":2", StringComparison.Ordinal));
        Assert.Contains("format version 2, this microvm knows version 1", Assert.Throws<SandboxException>(() => store.Get("one")).Message, StringComparison.Ordinal);
        List<string> unreadable = [];
        Assert.Equal(["two"], store.All(unreadable.Add).Select(s => s.Id));
        Assert.StartsWith("one: a container's state has format version 2", Assert.Single(unreadable), StringComparison.Ordinal);
    }

    [Fact]
    public void EveryMemberOfAStateIsKept()
    {
        ContainerStore store = new(_folder.Path);
        ContainerState full = State("one") with
        {
            FormatVersion = 1,
            Bundle = "/b\"\\\u00e4\n",
            Owner = uint.MaxValue,
            Vmm = new ProcessIdentity(7, ulong.MaxValue),
            Sandbox = new ProcessIdentity(9, 3),
            VmFolder = "9-3",
            Status = ContainerStatus.Paused,
            NetworkNamespace = "/n",
            Annotations = new() { ["k"] = "", ["\u20ac"] = "v" },
            Hooks = new Oci.Config.Hooks { Poststop = [new Oci.Config.Hook { Path = "/h", Args = ["h", "a"], Env = ["A=b"], Timeout = 5 }] },
            Cgroups = new() { [""] = "/c" },
            VmMemoryMiB = 77,
            Transient = true,
        };
        store.Create(full);
        ContainerState kept = store.Get("one");
        Assert.Equal(full.Annotations, kept.Annotations);
        Assert.Equal(full.Cgroups, kept.Cgroups);
        Assert.Equal(full.Hooks.Poststop![0].Args, Assert.Single(kept.Hooks!.Poststop!).Args);
        Assert.Equal(5, kept.Hooks.Poststop![0].Timeout);
        Assert.Equal(
            full with { Annotations = null, Cgroups = null, Hooks = null }, kept with { Annotations = null, Cgroups = null, Hooks = null });
        Assert.All(Enum.GetValues<ContainerStatus>(), s =>
        {
            store.Update(full with { Status = s });
            Assert.Equal(s, store.Get("one").Status);
        });
    }

    [Fact]
    public void UsedIdIsRefused()
    {
        ContainerStore store = new(_folder.Path);
        store.Create(State("one"));
        Assert.Contains("container with given ID already exists", Assert.Throws<SandboxException>(() => store.Create(State("one"))).Message, StringComparison.Ordinal);
        Assert.Throws<SpecException>(() => store.Create(State("a/b")));
    }

    [Fact]
    public void WhatACrashLeftIsReplaced()
    {
        ContainerStore store = new(_folder.Path);
        using Process dead = Process.Start("/bin/true");
        ProcessIdentity identity = new(dead.Id, 1);
        dead.WaitForExit();
        store.Create(State("one") with { Init = identity });
        File.WriteAllText(Path.Combine(store.FolderOf("one"), "vsock"), "");
        store.Create(State("one"));
        Assert.False(File.Exists(Path.Combine(store.FolderOf("one"), "vsock")));

        // A crash between making the folder and writing the state.
        Directory.CreateDirectory(store.FolderOf("two"));
        store.Create(State("two"));

        // A damaged state.
        File.WriteAllText(Path.Combine(store.FolderOf("two"), "state.json"), "{");
        Assert.Null(store.Find("two"));
        store.Create(State("two"));
    }

    [Fact]
    public void TheVmmOfADeadRunIsEnded()
    {
        ContainerStore store = new(_folder.Path);
        using Process vmm = Process.Start("/bin/sleep", "1000");
        store.Create(State("one") with { Init = new ProcessIdentity(int.MaxValue, 1), Vmm = ProcessIdentity.Of(vmm.Id) });
        store.Create(State("one"));
        Assert.True(vmm.WaitForExit(10_000));
        Assert.Equal(137, vmm.ExitCode);
    }

    [Fact]
    public void AContainerThatEndedKeepsItsIdUnlessItsCommandWasInTheForeground()
    {
        ContainerStore store = new(_folder.Path);
        ContainerState dead = State("one") with { Init = new ProcessIdentity(int.MaxValue, 1), Status = ContainerStatus.Running };
        store.Create(dead);
        Assert.Equal(ContainerStatus.Stopped, store.Get("one").LiveStatus());
        Assert.Throws<SandboxException>(() => store.Create(State("one")));
        store.Create(dead with { Id = "two", Transient = true });
        store.Create(State("two"));
        Assert.Equal(["one", "two"], store.All(_ => { }).Select(s => s.Id));
        Assert.Equal("container does not exist", Assert.Throws<SandboxException>(() => store.Get("three")).Message);
    }

    [Fact]
    public void StatusIsWhatIsAlive()
    {
        ContainerState running = State("one") with { Status = ContainerStatus.Paused, Vmm = ProcessIdentity.Current };
        Assert.Equal(ContainerStatus.Paused, running.LiveStatus());
        Assert.Equal(ContainerStatus.Stopped, (running with { Vmm = new ProcessIdentity(int.MaxValue, 1) }).LiveStatus());
        Assert.Equal(ContainerStatus.Stopped, (running with { Init = new ProcessIdentity(int.MaxValue, 1) }).LiveStatus());
        Assert.Equal(ContainerStatus.Creating, State("one").LiveStatus());
        Assert.Equal(0, running.ToOci(ContainerStatus.Stopped).Pid);
        Assert.Equal(Environment.ProcessId, running.ToOci(ContainerStatus.Running).Pid);
    }

    [Fact]
    public void OneOfManyCallersGetsTheId()
    {
        int won = 0;
        Parallel.For(0, 16, _ =>
        {
            try
            {
                new ContainerStore(_folder.Path).Create(State("one"));
                Interlocked.Increment(ref won);
            }
            catch (SandboxException)
            {
                // Another was first.
            }
        });
        Assert.Equal(1, won);
    }

    [Fact]
    public void OneDeletesWhileOthersWaitAndFindNothing()
    {
        ContainerStore store = new(_folder.Path);
        ContainerState state = State("one") with { Init = new ProcessIdentity(int.MaxValue, 1), Transient = true };
        store.Create(state);
        HeldContainer first = store.Hold("one")!;
        Task<HeldContainer?> second = Task.Run(() => store.Hold("one"));

        // Dead, of a command in the foreground: free otherwise.
        Assert.Contains("already exists", Assert.Throws<SandboxException>(() => store.Create(State("one"))).Message, StringComparison.Ordinal);
        Assert.True(first.IsThere);
        store.Delete(state);
        Assert.False(first.IsThere);
        first.Dispose();
        Assert.Null(second.Result);
        store.Create(State("one"));
        using HeldContainer later = store.Hold("one")!;
        Assert.True(later.IsThere);
        Assert.Null(store.Hold("two"));
    }

    [Fact]
    public void WhatHasNoStateIsRemovedAsSuch()
    {
        ContainerStore store = new(_folder.Path);
        Directory.CreateDirectory(store.FolderOf("left/execs"));
        store.DeleteStateless("left");
        Assert.False(Directory.Exists(store.FolderOf("left")));
        store.Create(State("one"));
        store.DeleteStateless("one");
        Assert.NotNull(store.Find("one"));
    }

    [Fact]
    public void ProcessesAreToldApart()
    {
        Assert.True(ProcessIdentity.Current.IsAlive());
        Assert.False((ProcessIdentity.Current with { StartTime = 1 }).IsAlive());
        Assert.Null(ProcessIdentity.Of(int.MaxValue));
    }

    private static ContainerState State(string id) => new()
    {
        Id = id,
        OciVersion = "1.0.2",
        Bundle = "/b",
        Rootfs = "/b/rootfs",
        Created = DateTimeOffset.UnixEpoch,
        Owner = 0,
        Init = ProcessIdentity.Current,
        Status = ContainerStatus.Creating,
    };
}
