using System.Runtime.InteropServices;
using MicroVm.Kvm.Native;
using MicroVm.Linux;
using static MicroVm.Kvm.Native.KvmAbi;

namespace MicroVm.Kvm;

/// <content>Interrupt controller, irqfd, ioeventfd, MSI.</content>
public sealed unsafe partial class KvmVm
{
    /// <summary>Most routes that <see cref="SetGsiRouting"/> takes.</summary>
    public const int MaxGsiRoutes = 4096;

    /// <summary>Creates the in-kernel PICs, I/O APIC and, for each vCPU made afterwards, a local APIC.</summary>
    public void CreateIrqchip() => KvmIoctl.Call(_fd, KVM_CREATE_IRQCHIP);

    /// <summary>Creates the in-kernel timer (i8254).</summary>
    public void CreatePit2(uint flags = 0)
    {
        kvm_pit_config config = new() { flags = flags };
        KvmIoctl.Call(_fd, KVM_CREATE_PIT2, ref config);
    }

    /// <summary>Sets the level of an interrupt line.</summary>
    public void SetIrqLine(uint gsi, bool level)
    {
        kvm_irq_level line = new() { irq = gsi, level = level ? 1u : 0 };
        KvmIoctl.Call(_fd, KVM_IRQ_LINE, ref line);
    }

    /// <summary>Injects interrupt <paramref name="gsi"/> whenever <paramref name="eventFd"/> is signalled.</summary>
    /// <param name="eventFd">Stays owned by the caller.</param>
    /// <param name="gsi">The interrupt line.</param>
    /// <param name="resampleFd">For a level-triggered line: signalled by KVM when the guest acknowledges it.</param>
    public void AssignIrqFd(EventFd eventFd, uint gsi, EventFd? resampleFd = null)
    {
        ArgumentNullException.ThrowIfNull(eventFd);
        kvm_irqfd irqfd = new()
        {
            fd = (uint)eventFd.Fd.Value,
            gsi = gsi,
            flags = resampleFd is null ? 0 : KVM_IRQFD_FLAG_RESAMPLE,
            resamplefd = resampleFd is null ? 0 : (uint)resampleFd.Fd.Value,
        };
        KvmIoctl.Call(_fd, KVM_IRQFD, ref irqfd);
    }

    /// <summary>Undoes <see cref="AssignIrqFd"/>.</summary>
    public void DeassignIrqFd(EventFd eventFd, uint gsi)
    {
        ArgumentNullException.ThrowIfNull(eventFd);
        kvm_irqfd irqfd = new() { fd = (uint)eventFd.Fd.Value, gsi = gsi, flags = KVM_IRQFD_FLAG_DEASSIGN };
        KvmIoctl.Call(_fd, KVM_IRQFD, ref irqfd);
    }

    /// <summary>Signals <paramref name="eventFd"/>, without an exit to user space, when the guest writes to the address.</summary>
    /// <param name="eventFd">Stays owned by the caller.</param>
    /// <param name="address">Guest physical address, or the port number.</param>
    /// <param name="length">1, 2, 4, 8: the width of the write; 0: any width (MMIO, without data match).</param>
    /// <param name="dataMatch">Only writes of this value; null: of any.</param>
    /// <param name="pio">The address is an I/O port.</param>
    public void AssignIoEventFd(EventFd eventFd, ulong address, uint length, ulong? dataMatch = null, bool pio = false) =>
        IoEventFd(eventFd, address, length, dataMatch, pio, 0);

    /// <summary>Undoes <see cref="AssignIoEventFd"/>; takes the same arguments.</summary>
    public void DeassignIoEventFd(EventFd eventFd, ulong address, uint length, ulong? dataMatch = null, bool pio = false) =>
        IoEventFd(eventFd, address, length, dataMatch, pio, KVM_IOEVENTFD_FLAG_DEASSIGN);

    /// <summary>Sends a message-signalled interrupt.</summary>
    /// <returns>False when the guest blocks it.</returns>
    public bool SignalMsi(ulong address, uint data)
    {
        kvm_msi msi = new() { address_lo = (uint)address, address_hi = (uint)(address >> 32), data = data };
        return KvmIoctl.Call(_fd, KVM_SIGNAL_MSI, ref msi) > 0;
    }

    /// <summary>Replaces the whole table of routes from GSIs to interrupt controllers' pins and MSIs.</summary>
    public void SetGsiRouting(ReadOnlySpan<kvm_irq_routing_entry> routes)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(routes.Length, MaxGsiRoutes, nameof(routes));
        nuint size = (nuint)sizeof(kvm_irq_routing) + ((nuint)routes.Length * (nuint)sizeof(kvm_irq_routing_entry));
        kvm_irq_routing* table = (kvm_irq_routing*)NativeMemory.AllocZeroed(size);
        try
        {
            table->nr = (uint)routes.Length;
            routes.CopyTo(new Span<kvm_irq_routing_entry>(table + 1, routes.Length));
            KvmIoctl.Call(_fd, KVM_SET_GSI_ROUTING, table);
        }
        finally
        {
            NativeMemory.Free(table);
        }
    }

    /// <summary>Reads a chip of the interrupt controller; <see cref="kvm_irqchip.chip_id"/> says which.</summary>
    public void GetIrqchip(ref kvm_irqchip chip) => KvmIoctl.Call(_fd, KVM_GET_IRQCHIP, ref chip);

    /// <summary>Writes a chip of the interrupt controller; <see cref="kvm_irqchip.chip_id"/> says which.</summary>
    public void SetIrqchip(in kvm_irqchip chip)
    {
        kvm_irqchip copy = chip;
        KvmIoctl.Call(_fd, KVM_SET_IRQCHIP, ref copy);
    }

    private void IoEventFd(EventFd eventFd, ulong address, uint length, ulong? dataMatch, bool pio, uint flags)
    {
        ArgumentNullException.ThrowIfNull(eventFd);
        kvm_ioeventfd argument = new()
        {
            datamatch = dataMatch ?? 0,
            addr = address,
            len = length,
            fd = eventFd.Fd.Value,
            flags = flags | (dataMatch is null ? 0 : KVM_IOEVENTFD_FLAG_DATAMATCH) | (pio ? KVM_IOEVENTFD_FLAG_PIO : 0),
        };
        KvmIoctl.Call(_fd, KVM_IOEVENTFD, ref argument);
    }
}
