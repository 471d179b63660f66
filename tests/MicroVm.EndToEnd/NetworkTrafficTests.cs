using System.Globalization;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>What is sent comes, from and to containers, whole and in order.</summary>
public sealed class NetworkTrafficTests(TwoContainers network) : IClassFixture<TwoContainers>
{
    private const int Port = TwoContainers.Port;

    // TCP over IPv4 with time stamps on Ethernet.
    private const int SegmentBytes = 1448;

    // A kernel whose code is emulated would take an hour for a gibibyte; the lab takes minutes.
    private static readonly long Bulk = Installation.KernelCodeIsEmulated ? 64 << 20 : 1 << 30;

    [SkippableTheory]
    [InlineData('L', "10.77.0.2")]
    [InlineData('L', "fd77::2")]
    [InlineData('C', "10.88.0.2")]
    [InlineData('C', "fd88::2")]
    [InlineData('C', "10.77.0.3")]
    [InlineData('D', "fd77::2")]
    public void StreamsAndDatagramsPass(char from, string to)
    {
        network.Require();
        foreach (string which in (string[])["get", "put"])
        {
            Assert.Contains("4194304 bytes, sums equal", network.On(from, $"net-peer {which} {to} {Port} 4194304"), StringComparison.Ordinal);
        }

        Assert.Equal("50 datagrams of 1300 bytes, 0 lost\n", network.On(from, $"net-peer datagrams {to} {Port} 50 1300"));
    }

    [SkippableTheory]
    [InlineData("get")]
    [InlineData("put")]
    public void BulkPassesWholeAndInOrder(string which)
    {
        network.Require();
        char receiver = which == "get" ? 'C' : 'R';
        long before = OutOfOrder(receiver);
        string said = network.C.RunLong($"net-peer {which} 10.77.0.1 {Port} {Bulk}");
        Assert.Contains($"{Bulk} bytes, sums equal", said, StringComparison.Ordinal);

        // TCP would have mended it: no segment was missing or came before another, but for those of a sender on the host that
        // moved from one CPU to the next, which plain veth pairs reorder, too.
        Assert.InRange(OutOfOrder(receiver) - before, 0, Bulk / SegmentBytes / 1000);
    }

    [SkippableTheory]
    [InlineData('C', "10.77.0.1", 1)]
    [InlineData('R', "10.77.0.2", 1)]
    [InlineData('C', "10.77.0.1", 16)]
    [InlineData('R', "10.77.0.2", 16)]
    public void AThousandShortConnectionsAreAllAnswered(char from, string to, int parallel)
    {
        network.Require();
        Assert.Equal("1000 connections, 0 lost\n", network.On(from, $"net-peer short {to} {Port} 1000 {parallel}"));
    }

    // A line of names is followed by one of values.
    private long OutOfOrder(char where)
    {
        const string Show = "grep ^TcpExt: /proc/net/netstat";
        string[] lines = (where == 'C' ? network.C.Run(Show) : network.Lab.In(where, Show)).Split('\n');
        int column = Array.IndexOf(lines[0].Split(' '), "TCPOFOQueue");
        return long.Parse(lines[1].Split(' ')[column], CultureInfo.InvariantCulture);
    }
}
