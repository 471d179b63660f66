using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>What the network reports to a sender arrives in containers, and theirs at their peers; ways of other MTUs.</summary>
public sealed class NetworkPathTests(TwoContainers network) : IClassFixture<TwoContainers>
{
    private const int Port = TwoContainers.Port;

    [SkippableTheory]
    [InlineData('C', "10.88.0.2")]
    [InlineData('C', "fd88::2")]
    [InlineData('L', "10.77.0.2")]
    [InlineData('L', "fd77::2")]
    [InlineData('D', "10.77.0.2")]
    public void AClosedPortIsReported(char from, string to)
    {
        network.Require();
        Assert.Equal("ECONNREFUSED\n", network.On(from, $"net-probe refused {to} 9"));
    }

    [SkippableTheory]
    [InlineData("10.66.0.2", 1, "type 11 code 0 of 10.77.0.1, EHOSTUNREACH\n")]
    [InlineData("10.66.0.2", 2, "type 11 code 0 of 10.88.0.2, EHOSTUNREACH\n")]
    [InlineData("fd66::2", 1, "type 3 code 0 of fd77::1, EHOSTUNREACH\n")]
    [InlineData("fd66::2", 2, "type 3 code 0 of fd88::2, EHOSTUNREACH\n")]
    public void ARouterReportsThatHopsAreUsedUp(string to, int hops, string report)
    {
        network.Require();
        Assert.Equal(report, network.On('C', $"net-probe expire {to} {Port} {hops}"));
    }

    [SkippableTheory]
    [InlineData("10.66.0.2", "10.77.0.3")]
    [InlineData("fd66::2", "fd77::3")]
    public void ANarrowerLinkBetweenIsFoundOut(string far, string near)
    {
        network.Require();
        Assert.Equal("1500\n", network.On('C', $"net-probe mtu {far} {Port}"));
        Assert.DoesNotContain("mtu 1400", network.Lab.In('F', $"ip route get {near}"), StringComparison.Ordinal);

        // Who is told sends smaller segments, and offers to take no larger ones: so the two ways are between different ends.
        Assert.Contains("4194304 bytes, sums equal", network.On('C', $"net-peer put {far} {Port} 4194304"), StringComparison.Ordinal);
        Assert.Contains("4194304 bytes, sums equal", network.On('F', $"net-peer put {near} {Port} 4194304"), StringComparison.Ordinal);
        Assert.Equal("1400\n", network.On('C', $"net-probe mtu {far} {Port}"));
        Assert.Contains("mtu 1400", network.Lab.In('F', $"ip route get {near}"), StringComparison.Ordinal);
        Assert.Equal((1, "datagram of 1400 bytes: EMSGSIZE\n"), network.C.Try($"net-peer datagrams {far} {Port} 1 1400"));
        Assert.Contains("4194304 bytes, sums equal", network.On('C', $"net-peer get {far} {Port} 4194304"), StringComparison.Ordinal);
    }

    [SkippableTheory]
    [InlineData("10.99.0", 28)]
    [InlineData("fd99:", 48)]
    public void JumboFramesPassWhole(string network24, int headers)
    {
        network.Require();
        string dot = network24.EndsWith(':') ? ":" : ".";
        foreach ((char from, string to) in ((char, string)[])[('C', $"{network24}{dot}1"), ('L', $"{network24}{dot}2")])
        {
            // Without fragments; one byte more does not.
            Assert.Equal($"20 datagrams of {9000 - headers} bytes, 0 lost\n", network.On(from, $"net-peer datagrams {to} {Port} 20 {9000 - headers}"));

            // TCP's segments fill them, but for its timestamps.
            Assert.Contains($"sums equal, segments of {9000 - headers - 12 - 12},", network.On(from, $"net-peer put {to} {Port} 4194304"), StringComparison.Ordinal);
        }

        Assert.Equal((1, $"datagram of {9001 - headers} bytes: EMSGSIZE\n"), network.C.Try($"net-peer datagrams {network24}{dot}1 {Port} 1 {9001 - headers}"));
    }
}
