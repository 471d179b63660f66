using System.Buffers.Binary;
using MicroVm.Kvm;
using MicroVm.Kvm.Native;
using MicroVm.Vmm.Boot;

namespace MicroVm.Vmm.Machine;

/// <summary>Brings a vCPU into the state in which its kernel's entry point expects it.</summary>
public static class VcpuSetup
{
    private const ulong Cr0ProtectedMode = 0x0000_0031;
    private const ulong Cr0LongMode = 0x8005_0033;
    private const ulong Cr4PhysicalAddressExtension = 0x20;
    private const ulong EferLongModeActive = 0x500;
    private const ulong RflagsReserved = 2;
    private const uint MsrMiscEnable = 0x1a0;
    private const uint MsrMtrrDefaultType = 0x2ff;
    private const int LapicLint0 = 0x350;
    private const int LapicLint1 = 0x360;
    private const uint DeliverNmi = 4 << 8;
    private const uint DeliverExtInt = 7 << 8;

    /// <summary>Sets MSRs that the kernel reads before it writes them. A host that refuses one goes without it.</summary>
    public static void SetMsrs(KvmVcpu vcpu)
    {
        ArgumentNullException.ThrowIfNull(vcpu);

        // Fast string operations; memory that no MTRR covers is write-back.
        ReadOnlySpan<kvm_msr_entry> msrs =
        [
            new kvm_msr_entry { index = MsrMiscEnable, data = 1 },
            new kvm_msr_entry { index = MsrMtrrDefaultType, data = (1 << 11) | 6 },
        ];
        for (int i = 0; i < msrs.Length; i++)
        {
            _ = vcpu.SetMsrs(msrs.Slice(i, 1));
        }
    }

    /// <summary>
    /// Enables all of the vCPU's extended states in XCR0, as its kernel will (Intel SDM volume 1, 13.3). QEMU's emulated
    /// AMD-V does not tell KVM when a guest does it, and KVM would take the states away at the next entry.
    /// </summary>
    public static void SetXcr0(KvmVcpu vcpu, ReadOnlySpan<kvm_cpuid_entry2> cpuid)
    {
        ArgumentNullException.ThrowIfNull(vcpu);
        foreach (kvm_cpuid_entry2 e in cpuid)
        {
            if (e is { function: 0xd, index: 0, eax: not 0 })
            {
                kvm_xcrs xcrs = new() { nr_xcrs = 1 };
                xcrs.xcrs[0] = new kvm_xcr { value = ((ulong)e.edx << 32) | e.eax };
                vcpu.SetXcrs(in xcrs);
            }
        }
    }

    /// <summary>Connects the boot processor's local APIC to the PIC and to NMI, as a PC's firmware leaves it.</summary>
    public static unsafe void SetLapic(KvmVcpu vcpu)
    {
        ArgumentNullException.ThrowIfNull(vcpu);
        vcpu.GetLapic(out kvm_lapic_state lapic);
        Span<byte> registers = new(lapic.regs, 0x400);
        BinaryPrimitives.WriteUInt32LittleEndian(registers[LapicLint0..], DeliverExtInt);
        BinaryPrimitives.WriteUInt32LittleEndian(registers[LapicLint1..], DeliverNmi);
        vcpu.SetLapic(in lapic);
    }

    /// <summary>Sets the boot processor's registers to enter <paramref name="kernel"/>.</summary>
    public static void SetRegisters(KvmVcpu vcpu, KernelImage kernel)
    {
        ArgumentNullException.ThrowIfNull(vcpu);
        ArgumentNullException.ThrowIfNull(kernel);
        bool longMode = kernel.Protocol == BootProtocol.Linux64;
        vcpu.GetSregs(out kvm_sregs sregs);
        sregs.cs = Segment(LongMode.CodeSelector, type: 0xb, size64: longMode);
        sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = Segment(LongMode.DataSelector, type: 3, size64: false);
        sregs.tr = new kvm_segment { selector = LongMode.TaskSelector, limit = 0x67, type = 0xb, present = 1 };
        sregs.gdt.@base = BootLayout.Gdt;
        sregs.gdt.limit = LongMode.GdtLimit;
        sregs.idt.@base = 0;
        sregs.idt.limit = 0;
        sregs.cr0 = longMode ? Cr0LongMode : Cr0ProtectedMode;
        sregs.cr3 = longMode ? BootLayout.PageTables : 0;
        sregs.cr4 = longMode ? Cr4PhysicalAddressExtension : 0;
        sregs.efer = longMode ? EferLongModeActive : 0;
        vcpu.SetSregs(in sregs);

        kvm_regs regs = new()
        {
            rip = kernel.Entry,
            rflags = RflagsReserved,
            rsp = longMode ? BootLayout.StackTop : 0,
            rsi = longMode ? BootLayout.ZeroPage : 0,
            rbx = longMode ? 0 : BootLayout.PvhStartInfo,
        };
        vcpu.SetRegs(in regs);
    }

    private static kvm_segment Segment(ushort selector, byte type, bool size64) => new()
    {
        selector = selector,
        limit = 0xffff_ffff,
        type = type,
        present = 1,
        s = 1,
        g = 1,
        l = size64 ? (byte)1 : (byte)0,
        db = size64 ? (byte)0 : (byte)1,
    };
}
