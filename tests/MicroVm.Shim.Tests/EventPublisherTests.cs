using MicroVm.Shim.Api;
using MicroVm.Shim.Events;
using MicroVm.Shim.Tests.Support;

namespace MicroVm.Shim.Tests;

/// <summary>Events reach containerd in order, whatever becomes of it meanwhile.</summary>
public sealed class EventPublisherTests
{
    [Fact]
    public void EventsWaitForContainerdAndKeepTheirOrder()
    {
        using TempFolder folder = new();
        string socket = folder["ttrpc"];
        using EventPublisher events = new("unix://" + socket, "space", _ => { });
        events.Publish(Topics.Create, new TaskCreate { ContainerId = "a" });
        using (FakeContainerd first = new(socket))
        {
            events.Publish(Topics.Start, new TaskStart { ContainerId = "a" });
            Eventually.True(() => first.Topics.Count == 2, "two events");
            Assert.Equal(["/tasks/create", "/tasks/start"], first.Topics);
            Envelope envelope = first.Events[0];
            Assert.Equal(("space", "containerd.events.TaskCreate"), (envelope.Namespace, envelope.Event.TypeUrl));
            Assert.Equal("a", TaskCreate.Parser.ParseFrom(envelope.Event.Value).ContainerId);
        }

        events.Publish(Topics.Exit, new TaskExit { ContainerId = "a" });
        events.Publish(Topics.Delete, new TaskDelete { ContainerId = "a" });
        using FakeContainerd second = new(socket);
        events.Flush();
        Assert.Equal(["/tasks/exit", "/tasks/delete"], second.Topics);
    }

    [Fact]
    public void WhatContainerdRefusesDoesNotHoldUpWhatFollows()
    {
        using TempFolder folder = new();
        using FakeContainerd containerd = new(folder["ttrpc"]) { Refuses = "/tasks/oom" };
        List<string> warnings = [];
        using EventPublisher events = new(folder["ttrpc"], "space", warnings.Add);
        events.Publish(Topics.OutOfMemory, new TaskOOM());
        events.Publish(Topics.Start, new TaskStart());
        Eventually.True(() => containerd.Topics.Count == 1, "the second event");
        Assert.Equal(["/tasks/start"], containerd.Topics);
        Assert.Contains("no such topic", Assert.Single(warnings), StringComparison.Ordinal);
    }

    [Fact]
    public void EventsThatNobodyTakesAreBounded()
    {
        using TempFolder folder = new();
        List<string> warnings = [];
        using EventPublisher events = new(folder["nobody"], "space", warnings.Add);
        for (int i = 0; i < EventPublisher.MaxWaiting; i++)
        {
            events.Publish(Topics.OutOfMemory, new TaskOOM());
        }

        Assert.Empty(warnings);
        events.Publish(Topics.Exit, new TaskExit());
        Assert.Contains("event /tasks/exit is lost", Assert.Single(warnings), StringComparison.Ordinal);
    }
}
