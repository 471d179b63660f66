using MicroVm.Linux.Native;
using MicroVm.Linux.Netlink;
using Xunit;

namespace MicroVm.Linux.Tests;

/// <summary>A network namespace and its socket.</summary>
public sealed class NetworkNamespaceTests
{
    private const string Missing = "only root may make network namespaces";

    [SkippableFact]
    public void The_socket_is_the_namespaces_wherever_it_is_used()
    {
        Skip.If(Libc.geteuid() != 0, Missing);
        using NetworkNamespace ns = NetworkNamespace.Create();
        Assert.Equal(["lo"], ns.Netlink(Names));
        using (NetworkNamespace again = ns.Run(() => NetworkNamespace.Open("/proc/thread-self/ns/net")))
        {
            Assert.Equal(Errno.OK, again.Netlink(s => s.TryExecute(NetlinkLinks.Change(1, Libc.IFF_UP, Libc.IFF_UP), out _)));
        }

        Assert.False(ns.IsCurrent());
        Assert.True(ns.Run(ns.IsCurrent));
    }

    [SkippableFact]
    public void A_socket_that_lost_an_answer_is_not_used_again()
    {
        Skip.If(Libc.geteuid() != 0, Missing);
        using NetworkNamespace ns = NetworkNamespace.Create();
        NetlinkSocket first = ns.Netlink(s => s);
        Assert.Throws<LinuxException>(() => ns.Netlink<int>(_ => throw new LinuxException(Errno.EPERM, "set MTU of")));
        Assert.Same(first, ns.Netlink(s => s));
        Assert.Throws<LinuxException>(() => ns.Netlink<int>(_ => throw new LinuxException(Errno.ENOBUFS, NetlinkSocket.Failure)));
        Assert.NotSame(first, ns.Netlink(s => s));
        Assert.Equal(["lo"], ns.Netlink(Names));
    }

    private static List<string> Names(NetlinkSocket socket)
    {
        List<string> names = [];
        socket.DumpLinks((in Libc.ifinfomsg _, NetlinkAttributes attributes) => names.Add(attributes.Text(Libc.IFLA_IFNAME)));

        // Some kernels give every namespace tunnels.
        return names.FindAll(n => n == "lo");
    }
}
