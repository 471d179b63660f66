using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>How many descriptors this process may have open (RLIMIT_NOFILE).</summary>
public static unsafe class OpenFileLimit
{
    /// <summary>
    /// Raises the limit to at least <paramref name="count"/> descriptors, as far as the process may: the soft limit up to the hard
    /// one, and that, too, with CAP_SYS_RESOURCE, up to fs.nr_open. Where it may not, opening fails with EMFILE later.
    /// </summary>
    public static void Need(ulong count)
    {
        Libc.rlimit limit;
        if (Libc.getrlimit(Libc.RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= count)
        {
            return;
        }

        Libc.rlimit wanted = new() { rlim_cur = count, rlim_max = Math.Max(count, limit.rlim_max) };
        if (Libc.setrlimit(Libc.RLIMIT_NOFILE, &wanted) != 0)
        {
            wanted = new() { rlim_cur = limit.rlim_max, rlim_max = limit.rlim_max };
            _ = Libc.setrlimit(Libc.RLIMIT_NOFILE, &wanted);
        }
    }
}
