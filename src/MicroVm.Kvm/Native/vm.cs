using System.Runtime.InteropServices;

namespace MicroVm.Kvm.Native;

#pragma warning disable CS1591 // named and documented by linux/kvm.h

/// <summary>A memslot.</summary>
public struct kvm_userspace_memory_region
{
    public uint slot;
    public uint flags;
    public ulong guest_phys_addr;
    public ulong memory_size;
    public ulong userspace_addr;
}

/// <summary>Argument of KVM_GET_DIRTY_LOG.</summary>
public unsafe struct kvm_dirty_log
{
    public uint slot;
    public uint padding1;
    public void* dirty_bitmap;
}

/// <summary>Argument of KVM_IOEVENTFD.</summary>
public unsafe struct kvm_ioeventfd
{
    public ulong datamatch;
    public ulong addr;
    public uint len;
    public int fd;
    public uint flags;
    public fixed byte pad[36];
}

/// <summary>Argument of KVM_IRQFD.</summary>
public unsafe struct kvm_irqfd
{
    public uint fd;
    public uint gsi;
    public uint flags;
    public uint resamplefd;
    public fixed byte pad[16];
}

/// <summary>Argument of KVM_IRQ_LINE.</summary>
public struct kvm_irq_level
{
    public uint irq;
    public uint level;
}

/// <summary>Argument of KVM_SIGNAL_MSI.</summary>
public unsafe struct kvm_msi
{
    public uint address_lo;
    public uint address_hi;
    public uint data;
    public uint flags;
    public uint devid;
    public fixed byte pad[12];
}

/// <summary>Argument of KVM_GET_CLOCK and KVM_SET_CLOCK; nanoseconds.</summary>
public unsafe struct kvm_clock_data
{
    public ulong clock;
    public uint flags;
    public uint pad0;
    public ulong realtime;
    public ulong host_tsc;
    public fixed uint pad[4];
}

/// <summary>Argument of KVM_ENABLE_CAP.</summary>
public unsafe struct kvm_enable_cap
{
    public uint cap;
    public uint flags;
    public fixed ulong args[4];
    public fixed byte pad[64];
}

/// <summary>Argument of KVM_CREATE_PIT2.</summary>
public unsafe struct kvm_pit_config
{
    public uint flags;
    public fixed uint pad[15];
}

/// <summary>State of one chip of the in-kernel interrupt controller: a PIC or the I/O APIC.</summary>
public unsafe struct kvm_irqchip
{
    public uint chip_id;
    public uint pad;
    public chip_state chip;

    [StructLayout(LayoutKind.Explicit, Size = 512)]
    public struct chip_state
    {
        [FieldOffset(0)]
        public kvm_pic_state pic;
        [FieldOffset(0)]
        public kvm_ioapic_state ioapic;
    }
}

/// <summary>State of an i8259.</summary>
public struct kvm_pic_state
{
    public byte last_irr;
    public byte irr;
    public byte imr;
    public byte isr;
    public byte priority_add;
    public byte irq_base;
    public byte read_reg_select;
    public byte poll;
    public byte special_mask;
    public byte init_state;
    public byte auto_eoi;
    public byte rotate_on_auto_eoi;
    public byte special_fully_nested_mode;
    public byte init4;
    public byte elcr;
    public byte elcr_mask;
}

/// <summary>State of the I/O APIC; a redirection entry is the 64-bit register.</summary>
public unsafe struct kvm_ioapic_state
{
    public ulong base_address;
    public uint ioregsel;
    public uint id;
    public uint irr;
    public uint pad;
    public fixed ulong redirtbl[KvmAbi.KVM_IOAPIC_NUM_PINS];
}

/// <summary>A route of a GSI to a pin of an interrupt controller.</summary>
public struct kvm_irq_routing_irqchip
{
    public uint irqchip;
    public uint pin;
}

/// <summary>A route of a GSI to a message-signalled interrupt.</summary>
public struct kvm_irq_routing_msi
{
    public uint address_lo;
    public uint address_hi;
    public uint data;
    public uint devid;
}

/// <summary>One route of KVM_SET_GSI_ROUTING.</summary>
public struct kvm_irq_routing_entry
{
    public uint gsi;
    public uint type;
    public uint flags;
    public uint pad;
    public target u;

    [StructLayout(LayoutKind.Explicit, Size = 32)]
    public struct target
    {
        [FieldOffset(0)]
        public kvm_irq_routing_irqchip irqchip;
        [FieldOffset(0)]
        public kvm_irq_routing_msi msi;
    }
}

/// <summary>Header of a list of <see cref="kvm_irq_routing_entry"/>.</summary>
public struct kvm_irq_routing
{
    public uint nr;
    public uint flags;
}
