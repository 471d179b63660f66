using System.Globalization;

namespace MicroVm.Shim.Containers;

/// <summary>Which process the host's kernel ends first for want of memory (proc(5), oom_score_adj).</summary>
internal static class OutOfMemoryScore
{
    /// <summary>Gives a VMM the score of its container: the VM's memory is the container's, not this process's, whose score is containerd's.</summary>
    /// <param name="pid">The VMM.</param>
    /// <param name="score">-1000 to 1000.</param>
    internal static void Set(int pid, int score)
    {
        try
        {
            File.WriteAllText(string.Create(CultureInfo.InvariantCulture, $"/proc/{pid}/oom_score_adj"), score.ToString(CultureInfo.InvariantCulture));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // It has ended, which is found out by whoever waits for it.
        }
    }
}
