using System.Globalization;
using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>The limits of what a container receives and sends, in bytes and in packets, are kept within a twentieth.</summary>
public sealed class NetworkRateTests
{
    // Far below what any machine can do, and saved up for a second: a pause of the host's does not matter.
    private const int PacketsPerSecond = 100;
    private const int BurstPackets = PacketsPerSecond;
    private const int BytesPerSecond = 100_000;
    private const int BurstBytes = BytesPerSecond;

    // Twice as much is sent, so that the burst is used up after as many again.
    private const int SentPerSecond = 200;
    private const string Window = "300 300";

    // One who sends or measures may stand still for longer than a twentieth of the time; a limit that is not kept is not in any of them.
    private const int Attempts = 5;

    // Ethernet, IPv4 and UDP headers.
    private const int Headers = 14 + 20 + 8;
    private const int Long = 1000;
    private const int Short = 100;

    // One container receives and the other sends: reports of what was received are not held back.
    [SkippableTheory]
    [InlineData("packets", Short, PacketsPerSecond)]
    [InlineData("bytes", Long, (double)BytesPerSecond / (Long + Headers))]
    public void BothDirectionsAreLimited(string unit, int bytes, double limit)
    {
        Installation.RequireKvm();
        Skip.If(NetworkLab.Missing is not null, NetworkLab.Missing);
        using NetworkLab lab = NetworkLab.Create();
        using GuestShell c = Start(lab, 'C', "receive", unit);
        using GuestShell d = Start(lab, 'D', "transmit", unit);
        c.Serve("net-rate report 8", "reporting");
        d.Run($"net-rate send 10.77.0.1 9 {bytes} {SentPerSecond} >/dev/null 2>&1 &");
        List<(double Sent, double Received)> measured = [];
        bool IsKept(Func<(double Sent, double Received), double> direction) => measured.Any(m => Math.Abs((direction(m) / limit) - 1) <= 0.05);
        while (!(IsKept(m => m.Sent) && IsKept(m => m.Received)))
        {
            Assert.True(measured.Count < Attempts, $"limit {limit:0.0} a second; sent and received: {string.Join(", ", measured)}");
            Task<double> received = Task.Run(() => Measure(lab, $"flood 10.77.0.2 8 {bytes} {SentPerSecond} {Window}"));
            measured.Add((Measure(lab, $"meter 9 {Window}"), received.Result));
        }
    }

    [SkippableTheory]
    [InlineData("transmit.bytes-per-second", "fast")]
    [InlineData("receive.burst-packets", "0")]
    [InlineData("receive.packets-per-second", "-1")]
    public void ALimitThatIsNoNumberIsRefusedByName(string name, string value)
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("true");
        bundle.Config["annotations"] = new JsonObject { [$"dev.microvm.network.{name}"] = value };
        CommandResult result = Container.Run(bundle);
        Assert.Equal(1, result.ExitCode);
        Assert.Contains($"dev.microvm.network.{name}", result.StandardError, StringComparison.Ordinal);
    }

    private static GuestShell Start(NetworkLab lab, char where, string direction, string unit)
    {
        bool packets = unit == "packets";
        string prefix = $"dev.microvm.network.{direction}.";
        return GuestShell.Start(lab.PathOf(where), bundle => bundle.Config["annotations"] = new JsonObject
        {
            [$"{prefix}{unit}-per-second"] = $"{(packets ? PacketsPerSecond : BytesPerSecond)}",
            [$"{prefix}burst-{unit}"] = $"{(packets ? BurstPackets : BurstBytes)}",
        });
    }

    private static double Measure(NetworkLab lab, string arguments) =>
        double.Parse(lab.In('R', $"{Installation.GuestProgram("net-rate")} {arguments}"), CultureInfo.InvariantCulture);
}
