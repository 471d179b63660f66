using MicroVm.Kvm;
using MicroVm.Kvm.Native;

namespace MicroVm.Vmm.Machine;

/// <summary>Makes the vCPUs of a VM alike, at its start and later. Any thread, one at a time.</summary>
/// <param name="vm">The VM.</param>
/// <param name="cpuid">What CPUID tells each of them.</param>
internal sealed class VcpuFactory(KvmVm vm, CpuidBuilder cpuid)
{
    /// <summary>What the CPUID of a vCPU is set to.</summary>
    internal kvm_cpuid_entry2[] CpuidOf(int id) => cpuid.For(id);

    /// <summary>Creates a vCPU, which waits to be started by another (INIT, SIPI) unless its number is 0.</summary>
    /// <exception cref="Linux.LinuxException">KVM refuses it.</exception>
    internal KvmVcpu Create(int id)
    {
        KvmVcpu vcpu = vm.CreateVcpu(id);
        try
        {
            SetUp(vcpu);
            return vcpu;
        }
        catch
        {
            vcpu.Dispose();
            throw;
        }
    }

    /// <summary>Creates a vCPU of a VM that runs.</summary>
    /// <exception cref="Linux.LinuxException">KVM refuses it.</exception>
    internal KvmVcpu CreateLater(int id)
    {
        KvmVcpu vcpu = Create(id);
        try
        {
            // KVM finds who gets an INIT in a map of APICs, which it made before this one was among them. Setting an APIC's state makes it anew.
            vcpu.GetLapic(out kvm_lapic_state lapic);
            vcpu.SetLapic(in lapic);
            return vcpu;
        }
        catch
        {
            vcpu.Dispose();
            throw;
        }
    }

    /// <summary>Gives a vCPU that has not run its CPUID, extended states and MSRs.</summary>
    /// <exception cref="Linux.LinuxException">KVM refuses one.</exception>
    internal void SetUp(KvmVcpu vcpu)
    {
        kvm_cpuid_entry2[] leaves = CpuidOf(vcpu.Id);
        vcpu.SetCpuid2(leaves);
        if (HardwareVirtualization.IsPresent)
        {
            VcpuSetup.SetXcr0(vcpu, leaves);
        }

        VcpuSetup.SetMsrs(vcpu);
    }
}
