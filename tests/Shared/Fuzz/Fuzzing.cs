using System.Diagnostics;
using System.Globalization;
using Xunit;

namespace MicroVm.Tests.Shared.Fuzz;

/// <summary>
/// Runs a target on random input: first on the seeds of <c>seeds.txt</c>, which once found something, then for a second on the
/// same others each time, or on new ones for MICROVM_FUZZ_SECONDS. A failure names its seed: add it to the file.
/// </summary>
internal static class Fuzzing
{
    private const long GrowthBound = 96 << 10;
    private static double s_seconds;

    private static bool IsTimed { get; } =
        double.TryParse(Environment.GetEnvironmentVariable("MICROVM_FUZZ_SECONDS"), CultureInfo.InvariantCulture, out s_seconds);

    private static TimeSpan Budget { get; } = TimeSpan.FromSeconds(IsTimed ? s_seconds : 1);

    /// <summary>Runs <paramref name="attempt"/> again and again; it throws when something is wrong. The process must not grow.</summary>
    public static void Run(string target, Action<Random> attempt)
    {
        foreach (int seed in Seeds(target))
        {
            Attempt(target, attempt, seed);
        }

        long before = AnonymousKiB();
        Stopwatch watch = Stopwatch.StartNew();
        for (int seed = IsTimed ? Random.Shared.Next() : 1; watch.Elapsed < Budget; seed++)
        {
            Attempt(target, attempt, seed);
        }

        GC.Collect();
        Assert.InRange(AnonymousKiB() - before, long.MinValue, GrowthBound);
    }

    private static IEnumerable<int> Seeds(string target) =>
        File.ReadLines(Path.Combine(AppContext.BaseDirectory, "Fuzz", "seeds.txt"))
            .Select(l => l.Split(' ', StringSplitOptions.RemoveEmptyEntries))
            .Where(w => w.Length == 2 && w[0] == target)
            .Select(w => int.Parse(w[1], CultureInfo.InvariantCulture));

    private static void Attempt(string target, Action<Random> attempt, int seed)
    {
        try
        {
            attempt(new Random(seed));
        }
        catch (Exception e)
        {
            throw new InvalidOperationException($"fuzzing failed; to keep it, add to tests/Shared/Fuzz/seeds.txt: {target} {seed}", e);
        }
    }

    private static long AnonymousKiB() => long.Parse(
        File.ReadLines("/proc/self/status").First(l => l.StartsWith("RssAnon:", StringComparison.Ordinal)).Split(' ')[^2],
        CultureInfo.InvariantCulture);
}
