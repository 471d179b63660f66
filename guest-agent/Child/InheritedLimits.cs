using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;

namespace MicroVm.Agent.Child;

/// <summary>The agent's own resource limits, which its children begin with. They do not change, and are read once.</summary>
public static unsafe class InheritedLimits
{
    private const int Resources = 16;
    private static Libc.rlimit[]? s_limits;

    /// <summary>Reads them ahead of time.</summary>
    public static void Read() => _ = Limits();

    /// <summary>Whether a child has <paramref name="limit"/> already.</summary>
    public static bool Are(Rlimit limit)
    {
        ArgumentNullException.ThrowIfNull(limit);
        return limit.Resource < Resources && Limits()[limit.Resource] is { } own && own.rlim_cur == limit.Soft && own.rlim_max == limit.Hard;
    }

    private static Libc.rlimit[] Limits()
    {
        if (s_limits is { } read)
        {
            return read;
        }

        Libc.rlimit[] limits = new Libc.rlimit[Resources];
        for (int i = 0; i < Resources; i++)
        {
            fixed (Libc.rlimit* limit = &limits[i])
            {
                Check.Result(Libc.getrlimit(i, limit), "getrlimit");
            }
        }

        return s_limits = limits;
    }
}
