using System.Runtime.Intrinsics.X86;

namespace MicroVm.Kvm;

/// <summary>Whether this host's processor can run guests by itself.</summary>
public static class HardwareVirtualization
{
    private const int VmxBit = 1 << 5;
    private const int SvmBit = 1 << 2;

    /// <summary>
    /// True when the processor shows VT-x or AMD-V (Intel SDM volume 2A, CPUID, leaf 1; AMD APM volume 3, appendix E). Elsewhere
    /// KVM, when there is one, is a pagetable-based one.
    /// </summary>
    public static bool IsPresent =>
        (X86Base.CpuId(1, 0).Ecx & VmxBit) != 0 || (X86Base.CpuId(unchecked((int)0x8000_0001), 0).Ecx & SvmBit) != 0;
}
