using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>How long a file may become by what a process writes or allocates (RLIMIT_FSIZE, getrlimit(2)).</summary>
public static unsafe class FileSizeLimit
{
    /// <summary>The hard limit of this process in bytes, which only a privileged process can exceed.</summary>
    public static ulong Hard
    {
        get
        {
            Libc.rlimit limit;
            return Libc.getrlimit(Libc.RLIMIT_FSIZE, &limit) != 0 ? ulong.MaxValue : limit.rlim_max;
        }
    }
}
