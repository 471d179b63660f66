using System.Runtime.InteropServices;

namespace MicroVm.Kvm.Native;

#pragma warning disable CS1591 // named and documented by linux/kvm.h

/// <summary>The page that KVM_RUN shares with user space: why the vCPU stopped, and with what.</summary>
[StructLayout(LayoutKind.Explicit, Size = 2352)]
public unsafe struct kvm_run
{
    [FieldOffset(0)]
    public byte request_interrupt_window;
    [FieldOffset(1)]
    public byte immediate_exit;
    [FieldOffset(8)]
    public uint exit_reason;
    [FieldOffset(12)]
    public byte ready_for_interrupt_injection;
    [FieldOffset(13)]
    public byte if_flag;
    [FieldOffset(14)]
    public ushort flags;
    [FieldOffset(16)]
    public ulong cr8;
    [FieldOffset(24)]
    public ulong apic_base;

    [FieldOffset(32)]
    public hw_exit hw;
    [FieldOffset(32)]
    public fail_entry_exit fail_entry;
    [FieldOffset(32)]
    public io_exit io;
    [FieldOffset(32)]
    public debug_exit debug;
    [FieldOffset(32)]
    public mmio_exit mmio;
    [FieldOffset(32)]
    public internal_exit @internal;
    [FieldOffset(32)]
    public emulation_failure_exit emulation_failure;
    [FieldOffset(32)]
    public system_event_exit system_event;
    [FieldOffset(32)]
    public eoi_exit eoi;
    [FieldOffset(32)]
    public msr_exit msr;

    [FieldOffset(288)]
    public ulong kvm_valid_regs;
    [FieldOffset(296)]
    public ulong kvm_dirty_regs;
    [FieldOffset(304)]
    public sync_area s;

    public struct hw_exit
    {
        public ulong hardware_exit_reason;
    }

    public struct fail_entry_exit
    {
        public ulong hardware_entry_failure_reason;
        public uint cpu;
    }

    public struct io_exit
    {
        public byte direction;
        public byte size;
        public ushort port;
        public uint count;
        public ulong data_offset;
    }

    public struct debug_exit
    {
        public kvm_debug_exit_arch arch;
    }

    public struct mmio_exit
    {
        public ulong phys_addr;
        public fixed byte data[8];
        public uint len;
        public byte is_write;
    }

    public struct internal_exit
    {
        public uint suberror;
        public uint ndata;
        public fixed ulong data[16];
    }

    public struct emulation_failure_exit
    {
        public uint suberror;
        public uint ndata;
        public ulong flags;
        public byte insn_size;
        public fixed byte insn_bytes[15];
    }

    public struct system_event_exit
    {
        public uint type;
        public uint ndata;
        public fixed ulong data[16];
    }

    public struct eoi_exit
    {
        public byte vector;
    }

    public struct msr_exit
    {
        public byte error;
        public fixed byte pad[7];
        public uint reason;
        public uint index;
        public ulong data;
    }

    [StructLayout(LayoutKind.Explicit, Size = 2048)]
    public struct sync_area
    {
        [FieldOffset(0)]
        public kvm_sync_regs regs;
    }
}

/// <summary>Registers kept in <see cref="kvm_run"/> when KVM_CAP_SYNC_REGS is used.</summary>
public struct kvm_sync_regs
{
    public kvm_regs regs;
    public kvm_sregs sregs;
    public kvm_vcpu_events events;
}

/// <summary>What stopped a vCPU under KVM_SET_GUEST_DEBUG.</summary>
public struct kvm_debug_exit_arch
{
    public uint exception;
    public uint pad;
    public ulong pc;
    public ulong dr6;
    public ulong dr7;
}
