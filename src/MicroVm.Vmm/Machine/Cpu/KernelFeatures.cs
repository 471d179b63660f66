using static MicroVm.Vmm.Machine.Cpu.CpuidRegister;

namespace MicroVm.Vmm.Machine.Cpu;

/// <summary>
/// What a <see cref="CpuTemplate"/> lets through whatever its level: features that change how a kernel works and not what a program may
/// execute, and leaves that describe the machine. (Linux, arch/x86/include/asm/cpufeatures.h.)
/// </summary>
internal static class KernelFeatures
{
    /// <summary>Bits of leaf 1, EDX, that 0x8000_0001, EDX, repeats on AMD's processors.</summary>
    internal const uint RepeatedByAmd = 0x0183_f3ff;

    private const uint All = uint.MaxValue;

    /// <summary>Bits that pass, by leaf, sub-leaf and register.</summary>
    internal static readonly Dictionary<(uint Function, uint Index, CpuidRegister Register), uint> Masks = new()
    {
        // Family, model, stepping; CLFLUSH size, APIC id.
        [(1, 0, Eax)] = All,
        [(1, 0, Ebx)] = All,
        [(1, 0, Ecx)] = Bits(17 /* pcid */, 21 /* x2apic */, 24 /* tsc_deadline_timer */, 31 /* hypervisor */),
        [(1, 0, Edx)] = Bits(
            1 /* vme */, 2 /* de */, 3 /* pse */, 4 /* tsc */, 5 /* msr */, 6 /* pae */, 7 /* mce */, 9 /* apic */, 11 /* sep */, 12 /* mtrr */,
            13 /* pge */, 14 /* mca */, 16 /* pat */, 17 /* pse36 */, 19 /* clflush */, 27 /* ss */, 28 /* ht */),

        // Sub-leaves up to 2.
        [(7, 0, Eax)] = 3,
        [(7, 0, Ebx)] = Bits(
            0 /* fsgsbase */, 1 /* tsc_adjust */, 6 /* fdp_excptn_only */, 7 /* smep */, 9 /* erms */, 10 /* invpcid */, 13 /* zero_fcs_fds */,
            20 /* smap */),
        [(7, 0, Ecx)] = Bits(2 /* umip */, 16 /* la57 */, 24 /* bus_lock_detect */),
        [(7, 0, Edx)] = Bits(
            4 /* fsrm */, 9 /* srbds_ctrl */, 10 /* md_clear */, 11 /* rtm_always_abort */, 26 /* spec_ctrl */, 27 /* intel_stibp */,
            28 /* flush_l1d */, 29 /* arch_capabilities */, 30 /* core_capabilities */, 31 /* spec_ctrl_ssbd */),
        [(7, 2, Edx)] = Bits(
            0 /* intel_psfd */, 1 /* ipred_ctrl */, 2 /* rrsba_ctrl */, 3 /* ddpd_u */, 4 /* bhi_ctrl */, 5 /* mcdt_no */),

        // Other ways than XSAVE to save the same state.
        [(0xd, 1, Eax)] = Bits(0 /* xsaveopt */, 1 /* xsavec */, 2 /* xgetbv1 */, 3 /* xsaves */),
        [(0xd, 1, Ebx)] = All,
        [(0x8000_0001, 0, Eax)] = All,
        [(0x8000_0001, 0, Ebx)] = All,
        [(0x8000_0001, 0, Ecx)] = Bits(1 /* cmp_legacy */, 22 /* topoext */),
        [(0x8000_0001, 0, Edx)] = (Bits(1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 14, 16, 17) & RepeatedByAmd) | Bits(20 /* nx */, 26 /* pdpe1gb */, 27 /* rdtscp */),
        [(0x8000_0007, 0, Edx)] = Bits(8 /* constant and nonstop TSC */),

        // Sizes of addresses; number of processors.
        [(0x8000_0008, 0, Eax)] = All,
        [(0x8000_0008, 0, Ebx)] = Bits(
            2 /* xsaveerptr */, 9 /* wbnoinvd */, 12 /* ibpb */, 14 /* ibrs */, 15 /* stibp */, 16, 17, 18, 19 /* their preferences */, 24 /* ssbd */,
            25 /* virt_ssbd */, 26 /* ssb_no */, 28 /* psfd */, 29 /* btc_no */, 30 /* ibpb_ret */),
        [(0x8000_0008, 0, Ecx)] = All,
        [(0x8000_0021, 0, Eax)] = Bits(
            0 /* no_nested_data_bp */, 2 /* lfence_rdtsc */, 5 /* verw_clear */, 6 /* null_sel_clr_base */, 8 /* autoibrs */, 27 /* sbpb */,
            28 /* ibpb_brtype */, 29 /* srso_no */, 30 /* srso_user_kernel_no */),
        [(0x8000_0021, 0, Ecx)] = Bits(1 /* tsa_sq_no */, 2 /* tsa_l1_no */),
    };

    /// <summary>
    /// True for leaves without features, which pass whole: vendor, caches, topology, power and frequencies, brand, and KVM's own.
    /// </summary>
    internal static bool IsKept(uint function) => function is
        0 or 2 or 4 or 5 or 6 or 0xb or 0x15 or 0x16 or 0x1f
        or (>= 0x4000_0000 and <= 0x4000_00ff)
        or 0x8000_0000 or (>= 0x8000_0002 and <= 0x8000_0006) or 0x8000_0019 or 0x8000_001d or 0x8000_001e;

    private static uint Bits(params ReadOnlySpan<int> bits)
    {
        uint mask = 0;
        foreach (int bit in bits)
        {
            mask |= 1u << bit;
        }

        return mask;
    }
}
