using MicroVm.Linux;
using MicroVm.Linux.Native;
using Xunit.Sdk;

namespace MicroVm.EndToEnd.Runner;

/// <summary>Test classes that are still to be run, for several takers: threads of this process, and other processes with the same claims.</summary>
/// <param name="classes">All of them, by their full names.</param>
/// <param name="claims">A folder that all takers share, in which a file stands for each class that was taken; null when there are no others.</param>
internal sealed class ClassQueue(IEnumerable<IGrouping<string, IXunitTestCase>> classes, string? claims)
{
    // What takes longest in the lab: the last to end would be waited for, had it begun late.
    private static readonly string[] LongestFirst =
    [
        "NetworkTrafficTests", "HostileAgentTests", "DeathTests", "NetworkCallersTests", "StockKernelTests", "FullDiskTests",
        "NetworkLifeTests", "CpuTests", "FlagTests", "LifecycleTests", "StdioTests", "NetworkTests", "NetworkRateTests",
    ];

    private readonly Queue<IGrouping<string, IXunitTestCase>> _classes = new(classes.OrderBy(c => Rank(c.Key)).ThenBy(c => c.Key, StringComparer.Ordinal));

    /// <summary>The next one that nobody has taken.</summary>
    /// <returns>Null when there is none.</returns>
    public IGrouping<string, IXunitTestCase>? Next()
    {
        lock (_classes)
        {
            while (_classes.TryDequeue(out IGrouping<string, IXunitTestCase>? next))
            {
                if (claims is null || Claim(Path.Combine(claims, next.Key)))
                {
                    return next;
                }
            }
        }

        return null;
    }

    private static uint Rank(string name) => (uint)Array.IndexOf(LongestFirst, name[(name.LastIndexOf('.') + 1)..]);

    private static bool Claim(string path)
    {
        try
        {
            using SafeFd made = SafeFd.From(Libc.open(path, Libc.O_WRONLY | Libc.O_CREAT | Libc.O_EXCL | Libc.O_CLOEXEC, 0b110_000_000), "open", path);
            return true;
        }
        catch (LinuxException e) when (e.Errno == Errno.EEXIST)
        {
            return false;
        }
    }
}
