using MicroVm.VmmControl;

namespace MicroVm.Sandbox.Vm;

/// <summary>
/// How much memory a VM has. It boots with what its first container needs; virtio-mem adds what containers that come later, and limits that
/// are raised, need beyond that, and takes it away again. One thread at a time.
/// </summary>
/// <param name="bootedMiB">What it boots with.</param>
/// <param name="growthMiB">How much may be added.</param>
internal sealed class VmMemory(int bootedMiB, int growthMiB)
{
    // The guest's kernel sets up the pages of each 128 MiB, on a busy host with a vCPU that has other work.
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);
    private const int PollMilliseconds = 10;
    private const int MiBShift = 20;
    private int _addedMiB;

    /// <summary>What it has, or was last asked to have.</summary>
    internal int MiB => bootedMiB + _addedMiB;

    /// <summary>Whether it can have another size than it booted with.</summary>
    internal bool CanGrow => growthMiB > 0;

    /// <summary>
    /// Has the guest plug or unplug memory until the VM has what is needed. A limit above what the VM may have is legal, and limits nothing.
    /// What is unplugged goes back to the host as the guest can free it: that is not waited for.
    /// </summary>
    /// <param name="vmm">The VMM.</param>
    /// <param name="neededMiB">For all containers and the guest's kernel.</param>
    /// <param name="makeRoom">Called with the VM's new size before it grows.</param>
    /// <exception cref="SandboxException">The guest did not plug it, or the VMM refused.</exception>
    internal void Fit(VmmControlClient vmm, long neededMiB, Action<int> makeRoom)
    {
        int wanted = (int)Math.Clamp(neededMiB - bootedMiB, 0, growthMiB);
        wanted = Math.Min((wanted + 1) & ~1, growthMiB);
        if (wanted == _addedMiB)
        {
            return;
        }

        bool grows = wanted > _addedMiB;
        if (grows)
        {
            makeRoom(bootedMiB + wanted);
        }

        Ask(vmm, wanted);
        long end = Environment.TickCount64 + (long)Patience.TotalMilliseconds;
        while (grows)
        {
            long plugged = vmm.ReadCounters().GetValueOrDefault("mem.plugged.bytes") >> MiBShift;
            if (plugged >= wanted)
            {
                break;
            }

            if (Environment.TickCount64 > end)
            {
                int before = _addedMiB;
                Ask(vmm, before);
                throw new SandboxException(
                    $"the VM has {bootedMiB + plugged} MiB, {bootedMiB + wanted} MiB are needed, and its kernel has not added them in {Patience.TotalSeconds} s (virtio-mem)");
            }

            Thread.Sleep(PollMilliseconds);
        }
    }

    private void Ask(VmmControlClient vmm, int addedMiB)
    {
        _ = vmm.Request(new ControlRequest { Operation = ControlOperation.ResizeMemory, AddedMiB = addedMiB });
        _addedMiB = addedMiB;
    }
}
