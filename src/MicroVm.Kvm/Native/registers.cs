namespace MicroVm.Kvm.Native;

#pragma warning disable CS1591 // named and documented by asm/kvm.h

/// <summary>General registers.</summary>
public struct kvm_regs
{
    public ulong rax;
    public ulong rbx;
    public ulong rcx;
    public ulong rdx;
    public ulong rsi;
    public ulong rdi;
    public ulong rsp;
    public ulong rbp;
    public ulong r8;
    public ulong r9;
    public ulong r10;
    public ulong r11;
    public ulong r12;
    public ulong r13;
    public ulong r14;
    public ulong r15;
    public ulong rip;
    public ulong rflags;
}

/// <summary>A segment register with its hidden part; limit in bytes.</summary>
public struct kvm_segment
{
    public ulong @base;
    public uint limit;
    public ushort selector;
    public byte type;
    public byte present;
    public byte dpl;
    public byte db;
    public byte s;
    public byte l;
    public byte g;
    public byte avl;
    public byte unusable;
    public byte padding;
}

/// <summary>GDTR or IDTR.</summary>
public unsafe struct kvm_dtable
{
    public ulong @base;
    public ushort limit;
    public fixed ushort padding[3];
}

/// <summary>Segments, descriptor tables, control registers, EFER, APIC base.</summary>
public unsafe struct kvm_sregs
{
    public kvm_segment cs;
    public kvm_segment ds;
    public kvm_segment es;
    public kvm_segment fs;
    public kvm_segment gs;
    public kvm_segment ss;
    public kvm_segment tr;
    public kvm_segment ldt;
    public kvm_dtable gdt;
    public kvm_dtable idt;
    public ulong cr0;
    public ulong cr2;
    public ulong cr3;
    public ulong cr4;
    public ulong cr8;
    public ulong efer;
    public ulong apic_base;
    public fixed ulong interrupt_bitmap[4];
}

/// <summary>x87 and SSE state.</summary>
public unsafe struct kvm_fpu
{
    public fixed byte fpr[8 * 16];
    public ushort fcw;
    public ushort fsw;
    public byte ftwx;
    public byte pad1;
    public ushort last_opcode;
    public ulong last_ip;
    public ulong last_dp;
    public fixed byte xmm[16 * 16];
    public uint mxcsr;
    public uint pad2;
}

/// <summary>Debug registers.</summary>
public unsafe struct kvm_debugregs
{
    public fixed ulong db[4];
    public ulong dr6;
    public ulong dr7;
    public ulong flags;
    public fixed ulong reserved[9];
}

/// <summary>An XSAVE area in the standard format; the first page of it (KVM_GET_XSAVE2 gives longer ones).</summary>
public unsafe struct kvm_xsave
{
    public fixed uint region[1024];
}

/// <summary>An extended control register.</summary>
public struct kvm_xcr
{
    public uint xcr;
    public uint reserved;
    public ulong value;
}

/// <summary>The sixteen <see cref="kvm_xcr"/> of <see cref="kvm_xcrs"/>.</summary>
[System.Runtime.CompilerServices.InlineArray(KvmAbi.KVM_MAX_XCRS)]
public struct kvm_xcr_array
{
    private kvm_xcr _element;
}

/// <summary>Extended control registers.</summary>
public unsafe struct kvm_xcrs
{
    public uint nr_xcrs;
    public uint flags;
    public kvm_xcr_array xcrs;
    public fixed ulong padding[16];
}

/// <summary>One model-specific register.</summary>
public struct kvm_msr_entry
{
    public uint index;
    public uint reserved;
    public ulong data;
}

/// <summary>Header of a list of <see cref="kvm_msr_entry"/>.</summary>
public struct kvm_msrs
{
    public uint nmsrs;
    public uint pad;
}

/// <summary>One CPUID leaf or subleaf.</summary>
public unsafe struct kvm_cpuid_entry2
{
    public uint function;
    public uint index;
    public uint flags;
    public uint eax;
    public uint ebx;
    public uint ecx;
    public uint edx;
    public fixed uint padding[3];
}

/// <summary>Header of a list of <see cref="kvm_cpuid_entry2"/>.</summary>
public struct kvm_cpuid2
{
    public uint nent;
    public uint padding;
}

/// <summary>Header of a list of MSR indices.</summary>
public struct kvm_msr_list
{
    public uint nmsrs;
}

/// <summary>The local APIC's register page.</summary>
public unsafe struct kvm_lapic_state
{
    public fixed byte regs[0x400];
}

/// <summary>Multiprocessing state of a vCPU.</summary>
public struct kvm_mp_state
{
    public uint mp_state;
}

/// <summary>Question and answer of KVM_TRANSLATE.</summary>
public unsafe struct kvm_translation
{
    public ulong linear_address;
    public ulong physical_address;
    public byte valid;
    public byte writeable;
    public byte usermode;
    public fixed byte pad[5];
}

/// <summary>Registers of KVM_SET_GUEST_DEBUG.</summary>
public unsafe struct kvm_guest_debug_arch
{
    public fixed ulong debugreg[8];
}

/// <summary>Argument of KVM_SET_GUEST_DEBUG.</summary>
public struct kvm_guest_debug
{
    public uint control;
    public uint pad;
    public kvm_guest_debug_arch arch;
}
