using Google.Protobuf.WellKnownTypes;
using MicroVm.Shim.Api;
using MicroVm.Shim.Tasks;
using MicroVm.Shim.Tests.Support;
using MicroVm.Ttrpc;

namespace MicroVm.Shim.Tests;

/// <summary>The Task service: states, errors, and the order of events.</summary>
public sealed class TaskServiceTests
{
    [Fact]
    public void ATaskGoesFromCreatedToDeleted()
    {
        FakeContainer container = new();
        using ShimServer shim = new(container);
        Assert.Equal(4711u, shim.Create().Pid);
        Assert.Equal(Status.Created, shim.State().Status);
        shim.Start();
        Assert.Equal(Status.Running, shim.State().Status);
        container.First.End(7);
        Assert.Equal(7u, shim.Wait().ExitStatus);
        Assert.Equal(Status.Stopped, shim.State().Status);
        DeleteResponse deleted = shim.Delete();
        Assert.Equal((4711u, 7u), (deleted.Pid, deleted.ExitStatus));
        Assert.NotNull(deleted.ExitedAt);
        Assert.True(container.Deleted);
        Assert.Equal(["/tasks/create", "/tasks/start", "/tasks/exit box 7", "/tasks/delete"], shim.Seen);
        Assert.Equal(StatusCode.NotFound, Assert.Throws<TtrpcException>(() => shim.State()).Code);
    }

    [Fact]
    public void TheStartOfAProcessThatEndsAtOnceIsPublishedBeforeItsExit()
    {
        FakeContainer? container = null;
        container = new FakeContainer { WhenStarted = () => container!.First.End(0), WhenExecuted = e => e.End(3) };
        using ShimServer shim = new(container);
        shim.Create();
        shim.Start();
        _ = shim.Wait();
        Assert.Equal(["/tasks/create", "/tasks/start", "/tasks/exit box 0"], shim.Seen);
    }

    [Fact]
    public void ExitsOfExecsArePublishedBeforeThatOfTheFirstProcess()
    {
        FakeContainer container = new();
        using ShimServer shim = new(container);
        shim.Create();
        shim.Start();
        shim.Exec("one");
        shim.Start("one");
        shim.Exec("two");
        shim.Start("two");
        container.Execs[1].End(2);
        Assert.Equal(2u, shim.Wait("two").ExitStatus);
        container.First.End(0);
        Assert.Equal(0u, shim.Wait().ExitStatus);

        // "one" outlived the first process, and ended with the container.
        Assert.True(container.IsEnded);
        Assert.Equal(
            [
                "/tasks/create", "/tasks/start", "/tasks/exec-added", "/tasks/exec-started", "/tasks/exec-added", "/tasks/exec-started",
                "/tasks/exit two 2", "/tasks/exit one 137", "/tasks/exit box 0",
            ],
            shim.Seen);
    }

    [Fact]
    public void AnExecThatFailsCanBeDeletedAndPublishesNoStart()
    {
        using ShimServer shim = new(new FakeContainer());
        shim.Create();
        shim.Start();
        shim.Exec("one", "missing");
        Assert.Contains("executable file not found", Assert.Throws<TtrpcException>(() => shim.Start("one")).Message, StringComparison.Ordinal);
        _ = shim.Delete("one");
        Assert.Equal(StatusCode.NotFound, Assert.Throws<TtrpcException>(() => shim.State("one")).Code);
        Assert.Equal(["/tasks/create", "/tasks/start", "/tasks/exec-added"], shim.Seen);
    }

    [Fact]
    public void WaitDoesNotHoldOtherCallsUp()
    {
        FakeContainer container = new();
        using ShimServer shim = new(container);
        shim.Create();
        shim.Start();
        uint status = 0;
        Thread waiter = new(() => status = shim.Wait().ExitStatus);
        waiter.Start();
        Assert.Equal(Status.Running, shim.State().Status);
        shim.Call("Kill", new KillRequest { Id = ShimServer.Id, Signal = 15 });
        waiter.Join();
        Assert.Equal(143u, status);
        Assert.Equal(StatusCode.NotFound, Assert.Throws<TtrpcException>(() => shim.Call("Kill", new KillRequest { Id = ShimServer.Id, Signal = 15 })).Code);
    }

    [Fact]
    public void PauseAndResumeChangeTheStatus()
    {
        using ShimServer shim = new(new FakeContainer());
        shim.Create();
        Assert.Equal(StatusCode.FailedPrecondition, Assert.Throws<TtrpcException>(() => shim.Call("Pause", new PauseRequest { Id = ShimServer.Id })).Code);
        shim.Start();
        shim.Call("Pause", new PauseRequest { Id = ShimServer.Id });
        Assert.Equal(Status.Paused, shim.State().Status);
        shim.Call("Resume", new ResumeRequest { Id = ShimServer.Id });
        Assert.Equal(Status.Running, shim.State().Status);
        Assert.Equal(["/tasks/create", "/tasks/start", "/tasks/paused", "/tasks/resumed"], shim.Seen);
    }

    [Fact]
    public void ARunningTaskIsNotDeletedAndACreatedOneIs()
    {
        FakeContainer container = new();
        using ShimServer shim = new(container);
        shim.Create();
        Assert.Equal(137u, shim.Delete().ExitStatus);
        Assert.Equal(["/tasks/create", "/tasks/exit box 137", "/tasks/delete"], shim.Seen);
        using ShimServer other = new(new FakeContainer());
        other.Create();
        other.Start();
        Assert.Equal(StatusCode.FailedPrecondition, Assert.Throws<TtrpcException>(() => other.Delete()).Code);
    }

    [Fact]
    public void ShutdownEndsTheShimOnlyWithoutTasks()
    {
        FakeContainer container = new();
        using ShimServer shim = new(container);
        shim.Create();
        shim.Call("Shutdown", new ShutdownRequest { Id = ShimServer.Id });
        Assert.False(shim.IsShutDown);
        _ = shim.Delete();
        shim.Call("Shutdown", new ShutdownRequest { Id = ShimServer.Id });
        Eventually.True(() => shim.IsShutDown, "the shim is shut down");
    }

    [Fact]
    public void WhatIsNotSupportedIsRefusedByName()
    {
        using ShimServer shim = new(new FakeContainer());
        TtrpcException options = Assert.Throws<TtrpcException>(() => shim.Create(r => r.Options = new Any { TypeUrl = "containerd.runc.v1.Options" }));
        Assert.Equal(StatusCode.InvalidArgument, options.Code);
        Assert.Contains("containerd.runc.v1.Options", options.Message, StringComparison.Ordinal);
        Assert.Equal(StatusCode.FailedPrecondition, Assert.Throws<TtrpcException>(() => shim.Create(r => r.Checkpoint = "/tmp/image")).Code);
        Assert.Contains("type fuse", Assert.Throws<TtrpcException>(() => shim.Create(r => r.Rootfs.Add(new Mount { Type = "fuse", Source = "s" }))).Message, StringComparison.Ordinal);
        shim.Create();
        TtrpcException checkpoint = Assert.Throws<TtrpcException>(() => shim.Call("Checkpoint", new CheckpointTaskRequest { Id = ShimServer.Id }));
        Assert.Equal(StatusCode.FailedPrecondition, checkpoint.Code);
        Assert.Equal(StatusCode.AlreadyExists, Assert.Throws<TtrpcException>(() => shim.Create()).Code);
        Assert.Equal(StatusCode.Unimplemented, Assert.Throws<TtrpcException>(() => shim.Call("Migrate", new ShutdownRequest())).Code);
    }

    [Fact]
    public void AnUnknownKeyOfTheOptionsIsNamed()
    {
        using ShimServer shim = new(new FakeContainer());
        Options options = new() { ConfigBody = Google.Protobuf.ByteString.CopyFromUtf8("memroy = 512\n") };
        Any any = new() { TypeUrl = "runtimeoptions.v1.Options", Value = Google.Protobuf.MessageExtensions.ToByteString(options) };
        Assert.Contains("memroy", Assert.Throws<TtrpcException>(() => shim.Create(r => r.Options = any)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void TheThirdVersionOfTheServiceIsTheSame()
    {
        using ShimServer shim = new(new FakeContainer());
        shim.Create();
        ConnectResponse connected = shim.Call("Connect", new ConnectRequest { Id = ShimServer.Id }, ConnectResponse.Parser, TaskService.Version3);
        Assert.Equal((4711u, (uint)Environment.ProcessId), (connected.TaskPid, connected.ShimPid));
        PidsResponse pids = shim.Call("Pids", new PidsRequest { Id = ShimServer.Id }, PidsResponse.Parser, TaskService.Version3);
        Assert.Equal(4711u, Assert.Single(pids.Processes).Pid);
    }

    [Fact]
    public void KillsForWantOfMemoryArePublishedBeforeTheExit()
    {
        FakeContainer container = new() { KillsForMemory = 2 };
        using ShimServer shim = new(container);
        shim.Create();
        shim.Start();
        Eventually.True(() => shim.Seen.Count(t => t == "/tasks/oom") == 2, "both kills");
        container.First.End(137);
        _ = shim.Wait();
        Assert.Equal("/tasks/exit box 137", shim.Seen[^1]);
    }

    [Fact]
    public void ATerminalsSizeIsKeptForAProcessThatIsNotStarted()
    {
        FakeContainer container = new();
        using ShimServer shim = new(container);
        shim.Create();
        shim.Start();
        shim.Exec("one");
        shim.Call("ResizePty", new ResizePtyRequest { Id = ShimServer.Id, ExecId = "one", Width = 77, Height = 33 });
        shim.Start("one");
        Assert.Equal((77u, 33u), container.Execs[0].Size);
        shim.Call("ResizePty", new ResizePtyRequest { Id = ShimServer.Id, ExecId = "one", Width = 100, Height = 40 });
        Assert.Equal((100u, 40u), container.Execs[0].Size);
        shim.Call("CloseIO", new CloseIORequest { Id = ShimServer.Id, ExecId = "one", Stdin = true });
        Assert.True(container.Execs[0].InputClosed);
    }
}
