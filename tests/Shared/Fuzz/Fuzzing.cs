using System.Diagnostics;
using System.Globalization;
using Xunit;

namespace MicroVm.Tests.Shared.Fuzz;

/// <summary>
/// Runs a target on random input: first on the seeds of <c>seeds.txt</c> and the inputs of <c>corpus/</c>, which once found or
/// reached something, then for a second on others from MICROVM_FUZZ_SEED on, or on chance ones for MICROVM_FUZZ_SECONDS. With instrumented
/// assemblies (<c>make fuzz</c>) the inputs that reach new code are changed further. A failure names its seed or input: keep it.
/// </summary>
internal static class Fuzzing
{
    private const long GrowthBound = 96 << 10;

    // A target that makes threads stands at some 140 MiB from the first minute on.
    private const long TimedGrowthBound = 192 << 10;
    private static double s_seconds;

    private static bool IsTimed { get; } =
        double.TryParse(Environment.GetEnvironmentVariable("MICROVM_FUZZ_SECONDS"), CultureInfo.InvariantCulture, out s_seconds);

    /// <summary>Where the seeds of a short run begin: another place each day in CI, by MICROVM_FUZZ_SEED.</summary>
    private static int FirstSeed { get; } =
        int.TryParse(Environment.GetEnvironmentVariable("MICROVM_FUZZ_SEED"), CultureInfo.InvariantCulture, out int first) ? first : 1;

    private static TimeSpan Budget { get; } = TimeSpan.FromSeconds(IsTimed ? s_seconds : 1);

    // Where make fuzz wants what a run found, and which target it is about.
    private static string? Found { get; } = Environment.GetEnvironmentVariable("MICROVM_FUZZ_FOUND");

    private static string? Only { get; } = Environment.GetEnvironmentVariable("MICROVM_FUZZ_TARGET");

    /// <summary>Runs <paramref name="attempt"/> again and again; it throws when something is wrong. The process must not grow.</summary>
    public static void Run(string target, Action<Random> attempt)
    {
        if (Only is not null && Only != target)
        {
            return;
        }

        foreach (int seed in Seeds(target))
        {
            Attempt(target, attempt, seed);
        }

        long before = AnonymousKiB();
        if (CoverageMap.IsInstrumented)
        {
            RunByCoverage(target, attempt);
        }
        else
        {
            foreach (byte[] input in Corpus.KeptInputs(target))
            {
                Attempt(target, attempt, input);
            }

            Stopwatch watch = Stopwatch.StartNew();
            for (int seed = IsTimed ? Random.Shared.Next() : FirstSeed; watch.Elapsed < Budget; seed++)
            {
                Attempt(target, attempt, seed);
            }
        }

        GC.Collect();
        Assert.InRange(AnonymousKiB() - before, long.MinValue, IsTimed ? TimedGrowthBound : GrowthBound);
    }

    private static void RunByCoverage(string target, Action<Random> attempt)
    {
        Corpus corpus = new();
        int attempts = 0;
        void Try(byte[] input)
        {
            attempts++;
            CoverageMap.Clear();
            Attempt(target, attempt, input);
            if (CoverageMap.TakeNew())
            {
                corpus.Add(input);
            }
        }

        foreach (byte[] input in Corpus.KeptInputs(target))
        {
            Try(input);
        }

        int edges = CoverageMap.Edges;
        Stopwatch watch = Stopwatch.StartNew();
        while (watch.Elapsed < Budget)
        {
            Try(corpus.Next(Random.Shared));
        }

        if (Found is not null)
        {
            corpus.Save(Path.Combine(Found, target));
            File.WriteAllText(
                Path.Combine(Found, target + ".txt"),
                string.Create(CultureInfo.InvariantCulture, $"{target}: {attempts} inputs, {CoverageMap.Edges} edges ({edges} of the kept inputs), {corpus.Count} inputs that reached something new\n"));
        }
    }

    private static IEnumerable<int> Seeds(string target) =>
        File.ReadLines(Path.Combine(AppContext.BaseDirectory, "Fuzz", "seeds.txt"))
            .Select(l => l.Split(' ', StringSplitOptions.RemoveEmptyEntries))
            .Where(w => w.Length == 2 && w[0] == target)
            .Select(w => int.Parse(w[1], CultureInfo.InvariantCulture));

    private static void Attempt(string target, Action<Random> attempt, int seed) =>
        Attempt(attempt, new Random(seed), () => $"add to tests/Shared/Fuzz/seeds.txt: {target} {seed}");

    private static void Attempt(string target, Action<Random> attempt, byte[] input) =>
        Attempt(attempt, new InputRandom(input), () =>
        {
            string folder = Path.Combine(Found ?? Path.GetTempPath(), "failed", target);
            Directory.CreateDirectory(folder);
            string file = Path.Combine(folder, Corpus.Name(input));
            File.WriteAllBytes(file, input);
            return $"copy {file} to tests/Shared/Fuzz/corpus/{target}/";
        });

    private static void Attempt(Action<Random> attempt, Random random, Func<string> howToKeep)
    {
        try
        {
            attempt(random);
        }
        catch (Exception e)
        {
            throw new InvalidOperationException($"fuzzing failed; to keep it, {howToKeep()}", e);
        }
    }

    private static long AnonymousKiB() => long.Parse(
        File.ReadLines("/proc/self/status").First(l => l.StartsWith("RssAnon:", StringComparison.Ordinal)).Split(' ')[^2],
        CultureInfo.InvariantCulture);
}
