using System.Runtime.InteropServices;
using MicroVm.Kvm;
using MicroVm.Kvm.Native;
using MicroVm.Linux;
using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Vmm.Snapshot;

/// <summary>
/// All that a vCPU is: what CPUID tells, registers, extended state, MSRs, local APIC, events (KVM API, "4.4 vcpu ioctls"). The order
/// of restoring matters: the APIC's base comes with the segments, its timer's mode before the deadline in an MSR.
/// </summary>
internal static class VcpuState
{
    /// <summary>Version of the sections.</summary>
    public const uint Version = 1;

    private const int MaxXsave = 64 << 10;
    private const uint MsrTsc = 0x10;
    private const uint MsrTscAdjust = 0x3b;
    private const uint MsrTscDeadline = 0x6e0;

    /// <summary>Writes the state of a vCPU that stands still; on its thread.</summary>
    /// <param name="vcpu">The vCPU.</param>
    /// <param name="cpuid">What its CPUID was set to: KVM changes what it keeps of it while the guest runs.</param>
    /// <param name="msrs">The MSRs that make up a guest's state; those that this KVM does not give are left out.</param>
    /// <param name="writer">Takes the state.</param>
    public static void Save(KvmVcpu vcpu, ReadOnlySpan<kvm_cpuid_entry2> cpuid, ReadOnlySpan<uint> msrs, StateWriter writer)
    {
        ArgumentNullException.ThrowIfNull(vcpu);
        ArgumentNullException.ThrowIfNull(writer);
        writer.WriteBytes(MemoryMarshal.AsBytes(cpuid));
        writer.Write(vcpu.MpState);
        vcpu.GetRegs(out kvm_regs regs);
        writer.Write(regs);
        vcpu.GetSregs(out kvm_sregs sregs);
        writer.Write(sregs);
        byte[] xsave = new byte[vcpu.XsaveSize];
        vcpu.GetXsave(xsave);
        writer.WriteBytes(xsave);
        vcpu.GetXcrs(out kvm_xcrs xcrs);
        writer.Write(xcrs);
        vcpu.GetDebugregs(out kvm_debugregs debugregs);
        writer.Write(debugregs);
        vcpu.GetLapic(out kvm_lapic_state lapic);
        writer.Write(lapic);
        writer.WriteBytes(MemoryMarshal.AsBytes(CollectionsMarshal.AsSpan(ReadMsrs(vcpu, msrs))));
        vcpu.GetVcpuEvents(out kvm_vcpu_events events);
        writer.Write(events);
    }

    /// <summary>Gives a vCPU that has not run yet, and has its CPUID, a saved state.</summary>
    /// <param name="vcpu">The vCPU.</param>
    /// <param name="cpuid">What its CPUID was set to.</param>
    /// <param name="readsHostTsc">The guest reads the host's time stamp counter itself, whatever KVM is told of another (KVM on PVM).</param>
    /// <param name="reader">The state.</param>
    /// <exception cref="SnapshotException">The state is malformed, or is not possible on this host; the message says what.</exception>
    public static void Restore(KvmVcpu vcpu, ReadOnlySpan<kvm_cpuid_entry2> cpuid, bool readsHostTsc, StateReader reader)
    {
        ArgumentNullException.ThrowIfNull(vcpu);
        ArgumentNullException.ThrowIfNull(reader);
        CompareCpuid(cpuid, Entries<kvm_cpuid_entry2>(reader, KvmVcpu.MaxCpuidEntries));
        uint mpState = reader.Read<uint>();
        kvm_regs regs = reader.Read<kvm_regs>();
        kvm_sregs sregs = reader.Read<kvm_sregs>();
        byte[] xsave = reader.ReadBytes(MaxXsave).ToArray();
        kvm_xcrs xcrs = reader.Read<kvm_xcrs>();
        kvm_debugregs debugregs = reader.Read<kvm_debugregs>();
        kvm_lapic_state lapic = reader.Read<kvm_lapic_state>();
        kvm_msr_entry[] msrs = Entries<kvm_msr_entry>(reader, KvmVcpu.MaxMsrs);
        kvm_vcpu_events events = reader.Read<kvm_vcpu_events>();
        reader.End();
        if (xsave.Length != vcpu.XsaveSize)
        {
            throw new SnapshotException($"the extended state has {xsave.Length} bytes, on this host it has {vcpu.XsaveSize}: make the snapshot anew");
        }

        string step = "";
        try
        {
            step = "multiprocessing state";
            vcpu.MpState = mpState;
            step = "registers";
            vcpu.SetRegs(in regs);
            step = "segments and control registers";
            vcpu.SetSregs(in sregs);
            step = "extended control registers";
            vcpu.SetXcrs(in xcrs);
            step = "extended state";
            vcpu.SetXsave(xsave);
            step = "debug registers";
            vcpu.SetDebugregs(in debugregs);
            step = "local APIC";
            vcpu.SetLapic(in lapic);
            step = "MSRs";
            SetMsrs(vcpu, readsHostTsc ? WithoutTsc(vcpu, msrs) : msrs);
            step = "events";
            vcpu.SetVcpuEvents(in events);
        }
        catch (LinuxException e)
        {
            throw new SnapshotException($"{reader.Section}: this host's KVM refuses the {step}: {e.Message}");
        }
    }

    private static List<kvm_msr_entry> ReadMsrs(KvmVcpu vcpu, ReadOnlySpan<uint> indices)
    {
        List<kvm_msr_entry> found = [];
        Span<kvm_msr_entry> one = stackalloc kvm_msr_entry[1];
        foreach (uint index in indices)
        {
            one[0] = new kvm_msr_entry { index = index };
            if (vcpu.GetMsrs(one) == 1)
            {
                found.Add(one[0]);
            }
        }

        return found;
    }

    /// <summary>A counter that cannot be set must at least not have gone back, as it has when the host was started again.</summary>
    private static kvm_msr_entry[] WithoutTsc(KvmVcpu vcpu, kvm_msr_entry[] entries)
    {
        Span<kvm_msr_entry> now = [new kvm_msr_entry { index = MsrTsc }];
        foreach (kvm_msr_entry entry in entries)
        {
            if (entry.index == MsrTsc && vcpu.GetMsrs(now) == 1 && now[0].data < entry.data)
            {
                throw new SnapshotException("the host's time stamp counter is behind that of the snapshot, which was made before the host was started again: make the snapshot anew");
            }
        }

        return [.. entries.Where(e => e.index is not (MsrTsc or MsrTscAdjust))];
    }

    private static void SetMsrs(KvmVcpu vcpu, kvm_msr_entry[] entries)
    {
        // The deadline's timer is started from the time stamp counter.
        Array.Sort(entries, static (a, b) => Rank(a.index).CompareTo(Rank(b.index)));
        ReadOnlySpan<kvm_msr_entry> rest = entries;
        while (!rest.IsEmpty)
        {
            int done = vcpu.SetMsrs(rest);
            if (done == rest.Length)
            {
                return;
            }

            // One that cannot be written is right as long as it has the value anyway.
            kvm_msr_entry refused = rest[done];
            Span<kvm_msr_entry> now = [new kvm_msr_entry { index = refused.index }];
            if (refused.data != 0 && (vcpu.GetMsrs(now) != 1 || now[0].data != refused.data))
            {
                throw new SnapshotException($"this host's KVM refuses the value {refused.data:x} of MSR {refused.index:x}: make the snapshot anew");
            }

            rest = rest[(done + 1)..];
        }
    }

    private static int Rank(uint index) => index switch
    {
        MsrTsc => 0,
        MsrTscDeadline => 2,
        _ => 1,
    };

    private static void CompareCpuid(ReadOnlySpan<kvm_cpuid_entry2> own, ReadOnlySpan<kvm_cpuid_entry2> saved)
    {
        for (int i = 0; i < Math.Max(own.Length, saved.Length); i++)
        {
            if (i >= own.Length || i >= saved.Length
                || !MemoryMarshal.AsBytes(own.Slice(i, 1)).SequenceEqual(MemoryMarshal.AsBytes(saved.Slice(i, 1))))
            {
                kvm_cpuid_entry2 e = i < saved.Length ? saved[i] : own[i];
                throw new SnapshotException(
                    $"the processor is another than the snapshot was made on (CPUID {e.function:x}.{e.index:x} differs): make the snapshot anew");
            }
        }
    }

    private static unsafe T[] Entries<T>(StateReader reader, int most)
        where T : unmanaged
    {
        ReadOnlySpan<byte> bytes = reader.ReadBytes(most * sizeof(T));
        return bytes.Length % sizeof(T) == 0
            ? MemoryMarshal.Cast<byte, T>(bytes).ToArray()
            : throw reader.Malformed($"{bytes.Length} bytes are not a list of entries of {sizeof(T)}");
    }
}
