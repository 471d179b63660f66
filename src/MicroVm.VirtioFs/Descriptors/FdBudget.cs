using MicroVm.Linux.Native;

namespace MicroVm.VirtioFs.Descriptors;

/// <summary>
/// How many descriptors the guest may make this process hold open, and how they are shared: inodes that are used but not
/// open, open handles, and the inodes below them. The rest of the VMM keeps its own share.
/// </summary>
internal sealed class FdBudget
{
    /// <summary>Descriptors that are left to the rest of the VMM.</summary>
    public const int Reserve = 512;

    private static readonly Lazy<FdBudget> Shared = new(() => new FdBudget(RaiseLimit()));
    private int _left;

    /// <summary>Makes a budget of <paramref name="descriptors"/>.</summary>
    public FdBudget(int descriptors)
    {
        Total = descriptors;
        _left = descriptors;
    }

    /// <summary>The budget of this process, shared by its virtio-fs devices: RLIMIT_NOFILE, raised as far as can be, less the reserve.</summary>
    public static FdBudget OfProcess => Shared.Value;

    /// <summary>The whole budget.</summary>
    public int Total { get; }

    /// <summary>Most inodes that have a descriptor although the guest has no handle on them: each pins two KiB of the host's.</summary>
    public int MostIdle => Math.Clamp(Total / 4, 1, 8192);

    /// <summary>
    /// Most handles: files and folders that the guest has open, each of which takes a descriptor and keeps its inode's.
    /// </summary>
    public int MostHandles => Math.Clamp((Total - MostIdle) / 2, 1, 1 << 16);

    /// <summary>Takes one; false at the bound.</summary>
    public bool TryTake()
    {
        if (Interlocked.Decrement(ref _left) >= 0)
        {
            return true;
        }

        Interlocked.Increment(ref _left);
        return false;
    }

    /// <summary>Gives one back.</summary>
    public void Give() => Interlocked.Increment(ref _left);

    // Safe: the kernel reads and writes locals of this call only.
    private static unsafe int RaiseLimit()
    {
        const ulong Most = 1 << 20; // fs.nr_open's default: more is never granted there, and no guest needs it
        Libc.rlimit limit;
        if (Libc.getrlimit(Libc.RLIMIT_NOFILE, &limit) != 0)
        {
            return Reserve;
        }

        // Raising the hard limit needs CAP_SYS_RESOURCE; without it the soft limit goes up to the hard one.
        Libc.rlimit wanted = new() { rlim_cur = Math.Max(Most, limit.rlim_max), rlim_max = Math.Max(Most, limit.rlim_max) };
        if (Libc.setrlimit(Libc.RLIMIT_NOFILE, &wanted) != 0)
        {
            wanted = new() { rlim_cur = limit.rlim_max, rlim_max = limit.rlim_max };
            if (Libc.setrlimit(Libc.RLIMIT_NOFILE, &wanted) != 0)
            {
                wanted = limit;
            }
        }

        return (int)Math.Min(wanted.rlim_cur, int.MaxValue) - Math.Min(Reserve, (int)Math.Min(wanted.rlim_cur, Most) / 2);
    }
}
