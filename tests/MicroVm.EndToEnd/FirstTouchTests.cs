using System.Globalization;
using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>The guest's kernel maps anonymous pages beside the one that is touched (kernel-config/patches/0025).</summary>
public sealed class FirstTouchTests
{
    private const int Row = 2000;

    [SkippableFact]
    public void ARowOfPagesTakesFewFaultsUnlessTheProgramSaysOtherwise()
    {
        Installation.RequireKvm();
        Assert.InRange(Number(Probe($"row {Row} -")), Row / 64, Row / 10);
        Assert.InRange(Number(Probe($"row {Row} locked")), Row, Row + 10);
        Assert.InRange(Number(Probe($"row {Row} random")), Row, Row + 10);
    }

    [SkippableFact]
    public void PagesFarApartTakeAtMostFourTimesTheirMemory()
    {
        Installation.RequireKvm();
        Assert.InRange(Number(Probe("sparse 1000 64")), 1000, 4000);
    }

    [SkippableFact]
    public void PagesFarApartFitIntoALimitForWhatIsTouched()
    {
        Installation.RequireKvm();

        // 48 MiB under a limit of 64 MiB: with three more for each page they would be 192 MiB.
        Assert.InRange(Number(Probe("sparse 12288 8", limit: 64 << 20)), 12_288, 15_000);
    }

    [SkippableFact]
    public void NeighboursAreZeroAndEachProcesssOwn()
    {
        Installation.RequireRuntime();
        Assert.Equal("ooooooooxooooooo\n", Probe("edges"));
    }

    private static int Number(string output) => int.Parse(output.Split(' ')[0], CultureInfo.InvariantCulture);

    private static string Probe(string arguments, long? limit = null)
    {
        using Bundle bundle = Bundle.Create(["/bin/touch-probe", .. arguments.Split(' ')]);
        bundle.AddGuestProgram("touch-probe");
        if (limit is { } bytes)
        {
            bundle.Linux["resources"]!["memory"] = new JsonObject { ["limit"] = bytes };
        }

        CommandResult result = Container.Run(bundle);
        Assert.True(result.ExitCode == 0, result.ToString());
        return result.StandardOutput;
    }
}
