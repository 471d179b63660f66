using MicroVm.Kvm;
using MicroVm.Kvm.Native;
using MicroVm.Linux;
using MicroVm.VmmControl.Snapshots;
using static MicroVm.Kvm.Native.KvmAbi;

namespace MicroVm.Vmm.Snapshot;

/// <summary>What KVM keeps for the VM as a whole: the PICs, the I/O APIC, and the guest's clock.</summary>
internal static class ChipState
{
    /// <summary>Version of the section.</summary>
    public const uint Version = 1;

    private static readonly uint[] Chips = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC];

    /// <summary>Writes the state while all vCPUs stand still.</summary>
    public static void Save(KvmVm vm, StateWriter writer)
    {
        ArgumentNullException.ThrowIfNull(vm);
        ArgumentNullException.ThrowIfNull(writer);
        vm.GetClock(out kvm_clock_data clock);
        writer.Write(clock.clock);
        foreach (uint chip in Chips)
        {
            kvm_irqchip state = new() { chip_id = chip };
            vm.GetIrqchip(ref state);
            writer.Write(state.chip);
        }
    }

    /// <summary>Restores all but the clock.</summary>
    /// <returns>The clock, for <see cref="StartClock"/>.</returns>
    /// <exception cref="SnapshotException">The state is malformed, or KVM refuses it.</exception>
    public static ulong Restore(KvmVm vm, StateReader reader)
    {
        ArgumentNullException.ThrowIfNull(vm);
        ArgumentNullException.ThrowIfNull(reader);
        ulong clock = reader.Read<ulong>();
        try
        {
            foreach (uint chip in Chips)
            {
                vm.SetIrqchip(new kvm_irqchip { chip_id = chip, chip = reader.Read<kvm_irqchip.chip_state>() });
            }
        }
        catch (LinuxException e)
        {
            throw new SnapshotException($"{reader.Section}: this host's KVM refuses the interrupt controllers: {e.Message}");
        }

        reader.End();
        return clock;
    }

    /// <summary>Has the guest's monotonic clock go on where it stood.</summary>
    /// <exception cref="SnapshotException">KVM refuses it.</exception>
    public static void StartClock(KvmVm vm, ulong nanoseconds)
    {
        ArgumentNullException.ThrowIfNull(vm);
        try
        {
            vm.SetClock(new kvm_clock_data { clock = nanoseconds });
        }
        catch (LinuxException e)
        {
            throw new SnapshotException($"this host's KVM refuses the clock {nanoseconds}: {e.Message}");
        }
    }
}
