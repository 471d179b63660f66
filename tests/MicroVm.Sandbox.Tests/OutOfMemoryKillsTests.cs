using System.Diagnostics;
using MicroVm.Linux;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.Proxies;
using MicroVm.Ttrpc;

namespace MicroVm.Sandbox.Tests;

/// <summary>Kills for want of memory as callers hear of them, from an agent that tells of one after the other without end.</summary>
public sealed class OutOfMemoryKillsTests
{
    private const int Notices = 5;

    [Fact]
    public void AnAgentThatTellsOfKillsWithoutEndIsAskedTenTimesASecond()
    {
        using EventLoop loop = new();
        Liar liar = new();
        using TtrpcServer server = new(loop, liar);
        (SafeFd ours, SafeFd its) = UnixSocket.Pair(nonBlocking: true);
        server.Serve(its);
        Thread thread = new(loop.Run) { IsBackground = true };
        thread.Start();
        AgentClient agent = new(new TtrpcClient(ours));
        OutOfMemoryKills kills = new(agent, "c");
        long known = 0;
        long start = Stopwatch.GetTimestamp();
        while (known < Notices)
        {
            (known, bool ended) = kills.Wait(known);
            Assert.False(ended);
        }

        int asked = Volatile.Read(ref liar.Asked);
        Assert.InRange(asked, Notices, 2 + (int)(Stopwatch.GetElapsedTime(start).TotalMilliseconds / OutOfMemoryKills.PauseMilliseconds));

        // The connection's end is the end of it.
        agent.Dispose();
        while (!kills.Wait(known + 1).Ended)
        {
        }

        loop.Stop();
        thread.Join();
    }

    private sealed class Liar : ITtrpcService
    {
        internal int Asked;

        public string ServiceName => "microvm.agent.v1.Agent";

        public bool Invoke(TtrpcCall call)
        {
            call.Complete(new OomEvent { ContainerId = "c", Kills = (ulong)Interlocked.Increment(ref Asked) });
            return true;
        }
    }
}
