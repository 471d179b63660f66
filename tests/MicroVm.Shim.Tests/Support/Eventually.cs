using System.Diagnostics;

namespace MicroVm.Shim.Tests.Support;

/// <summary>Waits for what another thread brings about; only a fault takes as long as the limit.</summary>
internal static class Eventually
{
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(60);

    internal static void True(Func<bool> condition, string what)
    {
        Stopwatch watch = Stopwatch.StartNew();
        while (!condition())
        {
            Assert.True(watch.Elapsed < Limit, $"not within {Limit.TotalSeconds} s: {what}");
            Thread.Sleep(5);
        }
    }
}
