using MicroVm.Linux.Native;
using MicroVm.Oci.Processes;
using Proto = MicroVm.Protocol.Agent;

namespace MicroVm.Sandbox.Plan;

/// <summary>
/// Resource limits of a process whose configuration does not set them: on the host it would inherit the caller's (getrlimit(2)), which
/// this process has. The guest's own follow from the size of its memory and are none that the caller knows.
/// </summary>
internal static unsafe class CallerLimits
{
    // RLIMIT_CPU to RLIMIT_RTTIME (bits/resource.h).
    private const uint Count = 16;

    /// <summary>Adds every limit that the process does not have.</summary>
    internal static void Add(Proto.Process process)
    {
        for (uint resource = 0; resource < Count; resource++)
        {
            Libc.rlimit limit;
            if (process.Rlimits.Any(l => l.Resource == resource) || Libc.getrlimit((int)resource, &limit) < 0)
            {
                continue;
            }

            if (resource == ResourceLimit.OpenFiles)
            {
                // More needs another setting of the guest's kernel, which only a limit of the configuration brings about.
                limit.rlim_max = Math.Min(limit.rlim_max, ResourceLimit.DefaultMostOpenFiles);
                limit.rlim_cur = Math.Min(limit.rlim_cur, limit.rlim_max);
            }

            process.Rlimits.Add(new Proto.Rlimit { Resource = resource, Soft = limit.rlim_cur, Hard = limit.rlim_max });
        }
    }
}
