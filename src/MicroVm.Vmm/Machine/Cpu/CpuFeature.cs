using MicroVm.Kvm.Native;

namespace MicroVm.Vmm.Machine.Cpu;

/// <summary>A register that CPUID answers with.</summary>
public enum CpuidRegister
{
    /// <summary>EAX.</summary>
    Eax,

    /// <summary>EBX.</summary>
    Ebx,

    /// <summary>ECX.</summary>
    Ecx,

    /// <summary>EDX.</summary>
    Edx,
}

/// <summary>One feature bit of CPUID.</summary>
/// <param name="Name">As in Linux's /proc/cpuinfo.</param>
/// <param name="Function">Leaf.</param>
/// <param name="Index">Sub-leaf.</param>
/// <param name="Register">The register that holds the bit.</param>
/// <param name="Bit">0 to 31.</param>
public readonly record struct CpuFeature(string Name, uint Function, uint Index, CpuidRegister Register, int Bit)
{
    /// <summary>The feature's bit.</summary>
    public uint Mask => 1u << Bit;

    /// <summary>True when one of <paramref name="leaves"/> has the bit.</summary>
    public bool IsIn(ReadOnlySpan<kvm_cpuid_entry2> leaves)
    {
        foreach (kvm_cpuid_entry2 e in leaves)
        {
            if (e.function == Function && e.index == Index)
            {
                return (Read(in e, Register) & Mask) != 0;
            }
        }

        return false;
    }

    internal static uint Read(in kvm_cpuid_entry2 e, CpuidRegister register) => register switch
    {
        CpuidRegister.Eax => e.eax,
        CpuidRegister.Ebx => e.ebx,
        CpuidRegister.Ecx => e.ecx,
        _ => e.edx,
    };
}
