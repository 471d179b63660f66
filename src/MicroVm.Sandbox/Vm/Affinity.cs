using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Sandbox.Vm;

/// <summary>Host CPUs of a VM: a child inherits its parent's, so they are set around its start.</summary>
internal static unsafe class Affinity
{
    /// <summary>Runs <paramref name="start"/> with this thread bound to <paramref name="cpus"/>; all when empty.</summary>
    /// <exception cref="SandboxException">The host has none of these CPUs.</exception>
    internal static T With<T>(IReadOnlyList<int> cpus, Func<T> start)
    {
        if (cpus.Count == 0)
        {
            return start();
        }

        Libc.cpu_set_t before, wanted = default;
        Check.Result(Libc.sched_getaffinity(0, (nuint)sizeof(Libc.cpu_set_t), &before), "sched_getaffinity");
        foreach (int cpu in cpus)
        {
            if (cpu < sizeof(Libc.cpu_set_t) * 8)
            {
                wanted.__bits[cpu / 64] |= 1UL << (cpu % 64);
            }
        }

        if (Libc.sched_setaffinity(0, (nuint)sizeof(Libc.cpu_set_t), &wanted) < 0)
        {
            throw new SandboxException($"linux.resources.cpu.cpus: the host has none of the CPUs {string.Join(',', cpus)}");
        }

        try
        {
            return start();
        }
        finally
        {
            _ = Libc.sched_setaffinity(0, (nuint)sizeof(Libc.cpu_set_t), &before);
        }
    }
}
