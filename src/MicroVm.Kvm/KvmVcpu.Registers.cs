using MicroVm.Kvm.Native;
using MicroVm.Linux;
using static MicroVm.Kvm.Native.KvmAbi;

namespace MicroVm.Kvm;

/// <content>Registers and events.</content>
public sealed unsafe partial class KvmVcpu
{
    /// <summary>Most MSRs that one call takes.</summary>
    public const int MaxMsrs = 256;

    /// <summary>Most CPUID entries that one call takes (KVM's own limit).</summary>
    public const int MaxCpuidEntries = 256;

    private readonly bool _hasXsave2;

    /// <summary>Bytes of an XSAVE area: 4096, or more where KVM_CAP_XSAVE2 says so.</summary>
    public int XsaveSize { get; }

    /// <summary>Reads the general registers.</summary>
    public void GetRegs(out kvm_regs regs) => Get(KVM_GET_REGS, out regs);

    /// <summary>Writes the general registers.</summary>
    public void SetRegs(in kvm_regs regs) => Set(KVM_SET_REGS, in regs);

    /// <summary>Reads segments and control registers.</summary>
    public void GetSregs(out kvm_sregs sregs) => Get(KVM_GET_SREGS, out sregs);

    /// <summary>Writes segments and control registers.</summary>
    public void SetSregs(in kvm_sregs sregs) => Set(KVM_SET_SREGS, in sregs);

    /// <summary>Reads x87 and SSE state.</summary>
    public void GetFpu(out kvm_fpu fpu) => Get(KVM_GET_FPU, out fpu);

    /// <summary>Writes x87 and SSE state.</summary>
    public void SetFpu(in kvm_fpu fpu) => Set(KVM_SET_FPU, in fpu);

    /// <summary>Reads the XSAVE area in the standard format.</summary>
    /// <param name="area">At least <see cref="XsaveSize"/> bytes.</param>
    public void GetXsave(Span<byte> area)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(area.Length, XsaveSize, nameof(area));
        fixed (byte* p = area)
        {
            _ = _hasXsave2
                ? KvmIoctl.Call(_fd, KVM_GET_XSAVE2, p)
                : KvmIoctl.Call(_fd, KVM_GET_XSAVE, p);
        }
    }

    /// <summary>Writes the XSAVE area in the standard format.</summary>
    /// <param name="area">At least <see cref="XsaveSize"/> bytes.</param>
    public void SetXsave(ReadOnlySpan<byte> area)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(area.Length, XsaveSize, nameof(area));
        fixed (byte* p = area)
        {
            KvmIoctl.Call(_fd, KVM_SET_XSAVE, p);
        }
    }

    /// <summary>Reads the extended control registers.</summary>
    public void GetXcrs(out kvm_xcrs xcrs) => Get(KVM_GET_XCRS, out xcrs);

    /// <summary>Writes the extended control registers.</summary>
    public void SetXcrs(in kvm_xcrs xcrs) => Set(KVM_SET_XCRS, in xcrs);

    /// <summary>Reads the MSRs named by the entries' indices.</summary>
    /// <returns>How many were read: the entry at this index is the first that KVM refused.</returns>
    public int GetMsrs(Span<kvm_msr_entry> entries) => Msrs(KVM_GET_MSRS, entries, entries);

    /// <summary>Writes MSRs.</summary>
    /// <returns>How many were written: the entry at this index is the first that KVM refused.</returns>
    public int SetMsrs(ReadOnlySpan<kvm_msr_entry> entries) => Msrs(KVM_SET_MSRS, entries, default);

    /// <summary>Sets what CPUID tells the guest. (PVM hosts accept it and ignore it.)</summary>
    public void SetCpuid2(ReadOnlySpan<kvm_cpuid_entry2> entries)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(entries.Length, MaxCpuidEntries, nameof(entries));
        byte* buffer = stackalloc byte[sizeof(kvm_cpuid2) + (entries.Length * sizeof(kvm_cpuid_entry2))];
        *(kvm_cpuid2*)buffer = new kvm_cpuid2 { nent = (uint)entries.Length };
        entries.CopyTo(new Span<kvm_cpuid_entry2>(buffer + sizeof(kvm_cpuid2), entries.Length));
        KvmIoctl.Call(_fd, KVM_SET_CPUID2, buffer);
    }

    /// <summary>Reads what CPUID tells the guest.</summary>
    /// <returns>How many entries were filled in.</returns>
    /// <exception cref="LinuxException">E2BIG: there are more entries than fit.</exception>
    public int GetCpuid2(Span<kvm_cpuid_entry2> entries)
    {
        int capacity = Math.Min(entries.Length, MaxCpuidEntries);
        byte* buffer = stackalloc byte[sizeof(kvm_cpuid2) + (capacity * sizeof(kvm_cpuid_entry2))];
        *(kvm_cpuid2*)buffer = new kvm_cpuid2 { nent = (uint)capacity };
        KvmIoctl.Call(_fd, KVM_GET_CPUID2, buffer);
        int count = (int)Math.Min(((kvm_cpuid2*)buffer)->nent, (uint)capacity);
        new ReadOnlySpan<kvm_cpuid_entry2>(buffer + sizeof(kvm_cpuid2), count).CopyTo(entries);
        return count;
    }

    /// <summary>Reads pending and injected events.</summary>
    public void GetVcpuEvents(out kvm_vcpu_events events) => Get(KVM_GET_VCPU_EVENTS, out events);

    /// <summary>Writes pending and injected events.</summary>
    public void SetVcpuEvents(in kvm_vcpu_events events) => Set(KVM_SET_VCPU_EVENTS, in events);

    /// <summary>Reads the debug registers.</summary>
    public void GetDebugregs(out kvm_debugregs debugregs) => Get(KVM_GET_DEBUGREGS, out debugregs);

    /// <summary>Writes the debug registers.</summary>
    public void SetDebugregs(in kvm_debugregs debugregs) => Set(KVM_SET_DEBUGREGS, in debugregs);

    /// <summary>Reads the local APIC's registers; needs the in-kernel interrupt controller.</summary>
    public void GetLapic(out kvm_lapic_state lapic) => Get(KVM_GET_LAPIC, out lapic);

    /// <summary>Writes the local APIC's registers.</summary>
    public void SetLapic(in kvm_lapic_state lapic) => Set(KVM_SET_LAPIC, in lapic);

    /// <summary>KVM_MP_STATE_*: whether the vCPU runs, halts or waits for its start-up.</summary>
    public uint MpState
    {
        get
        {
            Get(KVM_GET_MP_STATE, out kvm_mp_state state);
            return state.mp_state;
        }

        set
        {
            kvm_mp_state state = new() { mp_state = value };
            Set(KVM_SET_MP_STATE, in state);
        }
    }

    /// <summary>The guest's time stamp counter frequency in kHz.</summary>
    public int GetTscKhz() => KvmIoctl.Call(_fd, KVM_GET_TSC_KHZ);

    /// <summary>Sets the guest's time stamp counter frequency in kHz.</summary>
    public void SetTscKhz(int khz) => KvmIoctl.Call(_fd, KVM_SET_TSC_KHZ, khz);

    /// <summary>Single-stepping and breakpoints: KVM_GUESTDBG_*; 0 switches them off.</summary>
    public void SetGuestDebug(in kvm_guest_debug debug) => Set(KVM_SET_GUEST_DEBUG, in debug);

    /// <summary>Injects a non-maskable interrupt.</summary>
    public void Nmi() => KvmIoctl.Call(_fd, KVM_NMI);

    /// <summary>Tells the guest's kvm-clock watchdogs that the VM was paused; false when the guest has no kvm-clock.</summary>
    public bool TryNotifyPaused() => KvmIoctl.TryCall(_fd, KVM_KVMCLOCK_CTRL, null) >= 0;

    /// <summary>Translates a guest linear address by the vCPU's page tables.</summary>
    /// <returns>False when it is not mapped.</returns>
    public bool TryTranslate(ulong linearAddress, out ulong physicalAddress)
    {
        kvm_translation translation = new() { linear_address = linearAddress };
        KvmIoctl.Call(_fd, KVM_TRANSLATE, ref translation);
        physicalAddress = translation.physical_address;
        return translation.valid != 0;
    }

    private void Get<T>(uint request, out T value, [System.Runtime.CompilerServices.CallerArgumentExpression(nameof(request))] string name = "")
        where T : unmanaged
    {
        value = default;
        KvmIoctl.Call(_fd, request, ref value, name);
    }

    private void Set<T>(uint request, in T value, [System.Runtime.CompilerServices.CallerArgumentExpression(nameof(request))] string name = "")
        where T : unmanaged
    {
        // KVM only reads the argument of these calls.
        fixed (T* p = &value)
        {
            KvmIoctl.Call(_fd, request, (void*)p, name);
        }
    }

    private int Msrs(uint request, ReadOnlySpan<kvm_msr_entry> source, Span<kvm_msr_entry> destination)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(source.Length, MaxMsrs, nameof(source));
        byte* buffer = stackalloc byte[sizeof(kvm_msrs) + (source.Length * sizeof(kvm_msr_entry))];
        *(kvm_msrs*)buffer = new kvm_msrs { nmsrs = (uint)source.Length };
        Span<kvm_msr_entry> entries = new(buffer + sizeof(kvm_msrs), source.Length);
        source.CopyTo(entries);
        int count = KvmIoctl.Call(_fd, request, buffer, request == KVM_GET_MSRS ? nameof(KVM_GET_MSRS) : nameof(KVM_SET_MSRS));
        if (!destination.IsEmpty)
        {
            entries.CopyTo(destination);
        }

        return count;
    }
}
