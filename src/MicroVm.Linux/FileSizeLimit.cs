using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>How long a file may become by what this process writes or allocates (RLIMIT_FSIZE, getrlimit(2)).</summary>
public static unsafe class FileSizeLimit
{
    /// <summary>The limit that only a privileged process can exceed, in MiB.</summary>
    public static long MostMiB
    {
        get
        {
            Libc.rlimit limit;
            return Libc.getrlimit(Libc.RLIMIT_FSIZE, &limit) != 0 ? long.MaxValue >> 20 : (long)(limit.rlim_max >> 20);
        }
    }

    /// <summary>Lifts the limit, for this process and those that it starts; as far as the hard one where the process may not raise that.</summary>
    public static void Lift()
    {
        Libc.rlimit limit;
        if (Libc.getrlimit(Libc.RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == ulong.MaxValue)
        {
            return;
        }

        Libc.rlimit none = new() { rlim_cur = ulong.MaxValue, rlim_max = ulong.MaxValue };
        if (Libc.setrlimit(Libc.RLIMIT_FSIZE, &none) != 0)
        {
            none = new() { rlim_cur = limit.rlim_max, rlim_max = limit.rlim_max };
            _ = Libc.setrlimit(Libc.RLIMIT_FSIZE, &none);
        }
    }
}
