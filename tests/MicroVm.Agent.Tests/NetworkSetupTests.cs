using Google.Protobuf;
using MicroVm.Agent.Network;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Linux.Netlink;
using MicroVm.Protocol.Agent;
using Xunit;

namespace MicroVm.Agent.Tests;

/// <summary>A network plan in a namespace of its own, where only the loopback interface is.</summary>
public sealed class NetworkSetupTests
{
    private static readonly ByteString None = ByteString.CopyFrom(1, 2, 3);
    private static readonly ByteString Good = ByteString.CopyFrom(10, 1, 2, 3);

    [SkippableFact]
    public void WhatIsNoAddressIsRefusedAndTheRestIsDone()
    {
        Skip.IfNot(Libc.geteuid() == 0, "not root: carrying out a network plan was NOT tested");
        NetworkPlan plan = new()
        {
            Removed = new NetworkPlan { Routes = { Route(None, None) }, Neighbours = { Neighbour(None) } },
            Routes = { Route(None, None), Route(Good, ByteString.Empty, length: 256) },
            Neighbours = { Neighbour(None), Neighbour(Good) },
        };
        List<byte[]> found = [], routes = [];
        LinuxException? refused = null;
        InNamespace(() =>
        {
            using NetlinkSocket socket = new();
            refused = Assert.Throws<LinuxException>(() => new NetworkSetup(socket, "/proc/sys").Apply(plan));
            socket.Dump(
                new NetlinkRequest(Libc.RTM_GETNEIGH, Libc.NLM_F_DUMP).Append(new Libc.ndmsg { ndm_family = (byte)Libc.AF_INET, ndm_flags = Libc.NTF_PROXY }),
                "list neighbours",
                (_, payload) => found.Add(payload.ToArray()));
            socket.Dump(
                new NetlinkRequest(Libc.RTM_GETROUTE, Libc.NLM_F_DUMP).Append(new Libc.rtmsg { rtm_family = (byte)Libc.AF_INET }),
                "list routes",
                (_, payload) => routes.Add(payload.ToArray()));
        });
        Assert.NotNull(refused);
        Assert.DoesNotContain(routes, r => r[1] == 0);
        Assert.Contains(found, n => n.AsSpan().IndexOf(Good.Span) > 0);
    }

    [Fact]
    public void AnAttributeLongerThanItsLengthCanTellIsRefused()
    {
        const int longest = ushort.MaxValue - 4;
        NetlinkRequest request = new(Libc.RTM_NEWLINK, 0);
        request.Add(1, new byte[longest]);
        Assert.Equal(Errno.EMSGSIZE, Assert.Throws<LinuxException>(() => request.Add(1, new byte[longest + 1])).Errno);
        Assert.Equal(Errno.EMSGSIZE, Assert.Throws<LinuxException>(() => request.Nest(1, n => n.Add(1, new byte[longest]))).Errno);
    }

    private static NetworkRoute Route(ByteString to, ByteString by, uint length = 24) => new()
    {
        Family = 2,
        Destination = to,
        DestinationLength = length,
        Table = 254,
        Type = 1,
        NextHops = { new NetworkNextHop { Interface = "lo", Gateway = by } },
    };

    private static NetworkNeighbour Neighbour(ByteString address) => new() { Interface = "lo", Address = address, Proxy = true };

    private static void InNamespace(Action body)
    {
        Exception? failure = null;
        Thread thread = new(() =>
        {
            try
            {
                Check.Result(Libc.unshare(Libc.CLONE_NEWNET), "unshare(CLONE_NEWNET)");
                body();
            }
            catch (Exception e)
            {
                failure = e;
            }
        });
        thread.Start();
        thread.Join();
        Assert.Null(failure);
    }
}
