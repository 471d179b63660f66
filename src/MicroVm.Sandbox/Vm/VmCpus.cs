using MicroVm.Oci.Config;
using MicroVm.Protocol.Agent;
using MicroVm.VmmControl;

namespace MicroVm.Sandbox.Vm;

/// <summary>
/// How many vCPUs a VM has. It boots with those that its first container needs; containers that come later, and quotas that are raised, bring
/// others on line, which go off line again. One thread at a time.
/// </summary>
/// <param name="booted">How many it boots with.</param>
/// <param name="most">How many it may have.</param>
internal sealed class VmCpus(int booted, int most)
{
    // No host has more; keeps sums of quotas in range.
    private const ulong MostCpus = 1 << 16;
    private const ulong DefaultPeriod = 100_000;
    private const long Millionths = 1_000_000;

    private int _added;

    /// <summary>How many are on line.</summary>
    internal int Count => booted + _added;

    /// <summary>Whether there can be others than it booted with.</summary>
    internal bool CanGrow => most > booted;

    /// <summary>What a container may use by its quota, in millionths of a CPU; 0 without one.</summary>
    internal static long Need(CpuResources? cpu)
    {
        if (cpu?.Quota is not > 0)
        {
            return 0;
        }

        ulong period = cpu.Period is null or 0 ? DefaultPeriod : cpu.Period.Value;
        UInt128 need = (UInt128)cpu.Quota.Value * Millionths / period;
        return (long)UInt128.Min(need, MostCpus * Millionths);
    }

    /// <summary>A need as a number of vCPUs.</summary>
    internal static int Whole(long need) => (int)((need + Millionths - 1) / Millionths);

    /// <summary>
    /// Brings vCPUs on line, or takes them off line, until there are as many as are needed. A quota above what the VM may have is legal, and limits
    /// nothing.
    /// </summary>
    /// <param name="vmm">The VMM.</param>
    /// <param name="guest">The agent.</param>
    /// <param name="need">What all containers may use, in millionths of a CPU.</param>
    /// <exception cref="SandboxException">VMM or guest refused.</exception>
    internal void Fit(VmmControlClient vmm, Guest guest, long need)
    {
        int wanted = Math.Clamp(Whole(need), booted, Math.Max(booted, most));
        if (wanted == Count)
        {
            return;
        }

        if (wanted < Count)
        {
            // What the guest still runs on must not be taken from it.
            Online(guest, wanted);
            Run(vmm, wanted);
            _added = wanted - booted;
            return;
        }

        Run(vmm, wanted);
        try
        {
            Online(guest, wanted);
        }
        catch (SandboxException)
        {
            Online(guest, Count);
            Run(vmm, Count);
            throw;
        }

        _added = wanted - booted;
    }

    private static void Run(VmmControlClient vmm, int count) => _ = vmm.Request(new ControlRequest { Operation = ControlOperation.ResizeVcpus, Vcpus = count });

    private static void Online(Guest guest, int count) =>
        guest.Call($"bring {count} CPUs on line", agent => agent.SetOnlineCpus(new OnlineCpus { Count = (uint)count }, GuestPatience.Exec));
}
