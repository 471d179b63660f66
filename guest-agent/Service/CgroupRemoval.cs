using MicroVm.Agent.Cgroups;
using MicroVm.Linux;

namespace MicroVm.Agent.Service;

/// <summary>Removes cgroups whose processes have been killed.</summary>
internal static class CgroupRemoval
{
    /// <summary>How long the last process may take to leave its cgroup, in milliseconds: long only on a loaded host.</summary>
    internal const int PatienceMilliseconds = 30_000;

    private const int IntervalMilliseconds = 50;

    /// <summary>Removes a cgroup if it is empty; an error is logged.</summary>
    internal static bool TryRemove(string path)
    {
        bool removed = false;
        Background.TryOrWarn(() => removed = CgroupTree.Remove(path));
        return removed;
    }

    /// <summary>Waits until a cgroup is empty, and removes it.</summary>
    /// <exception cref="LinuxException">EBUSY: processes were left after <see cref="PatienceMilliseconds"/>.</exception>
    internal static void Remove(string path)
    {
        for (int waited = 0; waited < PatienceMilliseconds; waited += IntervalMilliseconds)
        {
            if (CgroupTree.Remove(path))
            {
                return;
            }

            Thread.Sleep(IntervalMilliseconds);
        }

        throw new LinuxException(Errno.EBUSY, "rmdir", path);
    }
}
