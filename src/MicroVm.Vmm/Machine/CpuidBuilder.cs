using System.Numerics;
using System.Runtime.InteropServices;
using MicroVm.Kvm.Native;
using MicroVm.Vmm.Machine.Cpu;

namespace MicroVm.Vmm.Machine;

/// <summary>
/// Makes what CPUID tells each vCPU from what KVM supports: its own APIC id, one package of N single-threaded cores, the
/// TSC-deadline timer, frequencies, no performance counters, no AMX without its state, and no virtualization of its own. (Intel SDM volume 2A, CPUID; AMD APM volume 3,
/// appendix E; Linux, Documentation/virt/kvm/x86/cpuid.rst.)
/// </summary>
public sealed class CpuidBuilder
{
    private const uint HypervisorBase = 0x4000_0000;
    private const uint HypervisorTimings = 0x4000_0010;
    private const uint ApicBusKhz = 1_000_000;
    private const uint Vmx = 1u << 5;
    private const uint Svm = 1u << 2;
    private const uint SvmLeaf = 0x8000_000a;
    private readonly List<kvm_cpuid_entry2> _common;
    private readonly int _vcpus;
    private readonly int _apicIdBits;

    /// <summary>Prepares the leaves that all vCPUs share.</summary>
    /// <param name="supported">KVM_GET_SUPPORTED_CPUID.</param>
    /// <param name="vcpus">Number of vCPUs.</param>
    /// <param name="tscKhz">Frequency of the guest's TSC in kHz; 0 when unknown.</param>
    /// <param name="tscDeadline">KVM_CAP_TSC_DEADLINE_TIMER.</param>
    /// <param name="template">What of it the guest sees.</param>
    public CpuidBuilder(ReadOnlySpan<kvm_cpuid_entry2> supported, int vcpus, uint tscKhz, bool tscDeadline, CpuTemplate template)
    {
        ArgumentNullException.ThrowIfNull(template);
        _vcpus = vcpus;
        _apicIdBits = BitOperations.Log2(BitOperations.RoundUpToPowerOf2((uint)vcpus));
        _common = new List<kvm_cpuid_entry2>(supported.Length + 8);
        foreach (kvm_cpuid_entry2 e in supported)
        {
            // Topology, performance counters and frequencies are made here, not copied; nested virtualization is hidden.
            if (e.function is not (0xa or 0xb or 0x1f or 0x15 or 0x16 or HypervisorTimings or SvmLeaf))
            {
                _common.Add(e);
            }
        }

        template.Apply(CollectionsMarshal.AsSpan(_common));
        MatrixExtensions.HideWithoutState(CollectionsMarshal.AsSpan(_common));
        AddTopology();
        AddFrequencies(tscKhz);
        for (int i = 0; i < _common.Count; i++)
        {
            kvm_cpuid_entry2 e = _common[i];
            AdjustCommon(ref e, tscKhz, tscDeadline);
            _common[i] = e;
        }
    }

    /// <summary>The leaves of vCPU <paramref name="id"/>, whose APIC id is its number.</summary>
    public kvm_cpuid_entry2[] For(int id)
    {
        kvm_cpuid_entry2[] leaves = [.. _common];
        foreach (ref kvm_cpuid_entry2 e in leaves.AsSpan())
        {
            switch (e.function)
            {
                case 1:
                    e.ebx = (e.ebx & 0x00ff_ffff) | ((uint)id << 24);
                    break;
                case 0xb:
                case 0x1f:
                    e.edx = (uint)id;
                    break;
                case 0x8000_001e:
                    e.eax = (uint)id;
                    e.ebx = (uint)id & 0xff;
                    e.ecx = 0;
                    break;
            }
        }

        return leaves;
    }

    private void AddTopology()
    {
        foreach (uint leaf in (ReadOnlySpan<uint>)[0xb, 0x1f])
        {
            _common.Add(Leaf(leaf, 0, 0, 1, 0x100));
            _common.Add(Leaf(leaf, 1, (uint)_apicIdBits, (uint)_vcpus, 0x201));
            _common.Add(Leaf(leaf, 2, 0, 0, 2));
        }
    }

    private void AddFrequencies(uint tscKhz)
    {
        if (tscKhz == 0)
        {
            return;
        }

        // KVM's APIC timer counts at 1 GHz: that is the crystal, and the TSC a multiple of it.
        kvm_cpuid_entry2 ratio = Leaf(0x15, 0, 1_000_000, tscKhz, ApicBusKhz * 1000);
        ratio.flags = 0;
        kvm_cpuid_entry2 speed = Leaf(0x16, 0, tscKhz / 1000, tscKhz / 1000, 0);
        speed.flags = 0;
        kvm_cpuid_entry2 timings = Leaf(HypervisorTimings, 0, tscKhz, ApicBusKhz, 0);
        timings.flags = 0;
        _common.Add(ratio);
        _common.Add(speed);
        _common.Add(timings);
    }

    private void AdjustCommon(ref kvm_cpuid_entry2 e, uint tscKhz, bool tscDeadline)
    {
        switch (e.function)
        {
            case 0:
                e.eax = Math.Max(e.eax, tscKhz == 0 ? 0xbu : 0x16);
                break;
            case 1:
                // Logical processors per package; HTT says that the field holds.
                e.ebx = (e.ebx & 0xff00_ffff) | (1u << _apicIdBits << 16);
                e.edx = _vcpus > 1 ? e.edx | (1u << 28) : e.edx & ~(1u << 28);
                e.ecx |= 1u << 31;
                e.ecx &= ~Vmx;
                e.ecx = tscDeadline ? e.ecx | (1u << 24) : e.ecx & ~(1u << 24);
                break;
            case 4 when (e.eax & 0x1f) != 0:
                // Level 3 is shared by the package, the others by nobody.
                bool shared = ((e.eax >> 5) & 7) >= 3;
                uint sharing = shared ? (1u << _apicIdBits) - 1 : 0;
                e.eax = (e.eax & 0x3fff) | (sharing << 14) | (((1u << _apicIdBits) - 1) << 26);
                break;
            case 6:
                // ARAT: the APIC timer runs in every power state. No energy-performance bias.
                e.eax |= 1u << 2;
                e.ecx &= ~(1u << 3);
                break;
            case 0x8000_0001:
                e.ecx &= ~Svm;
                break;
            case 0x8000_0008:
                e.ecx = (uint)(_vcpus - 1) | ((uint)_apicIdBits << 12);
                break;
            case 0x8000_001d when (e.eax & 0x1f) != 0:
                uint users = ((e.eax >> 5) & 7) >= 3 ? (uint)_vcpus - 1 : 0;
                e.eax = (e.eax & ~(0xfffu << 14)) | (users << 14);
                break;
            case HypervisorBase:
                e.eax = tscKhz == 0 ? e.eax : Math.Max(e.eax, HypervisorTimings);
                break;
        }
    }

    private static kvm_cpuid_entry2 Leaf(uint function, uint index, uint eax, uint ebx, uint ecx) => new()
    {
        function = function,
        index = index,
        flags = KvmAbi.KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax = eax,
        ebx = ebx,
        ecx = ecx,
    };
}
