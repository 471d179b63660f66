using MicroVm.Kvm.Native;
using MicroVm.VmmControl;
using static MicroVm.Vmm.Machine.Cpu.CpuidRegister;

namespace MicroVm.Vmm.Machine.Cpu;

/// <summary>
/// Which of the host's features a guest sees. All but <see cref="Host"/> are lists of what is let through: a level's instructions, and
/// what only a kernel uses (paging, interrupts, ways to save state, mitigations). What is not known here is hidden. Vendor, family, model,
/// caches and KVM's own leaves stay the host's. (Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E.)
/// </summary>
public sealed class CpuTemplate
{
    /// <summary>Everything that KVM supports.</summary>
    public static readonly CpuTemplate Host = new(CpuTemplateNames.Host, []);

    private const uint Xsave = 0xd;
    private const uint X87AndSse = 3;
    private const uint LegacyXsaveBytes = 576;
    private static readonly CpuTemplate[] All =
    [
        Host,
        new(CpuTemplateNames.V2, [.. PsAbiLevels.V1, .. PsAbiLevels.V2]),
        new(CpuTemplateNames.V3, [.. PsAbiLevels.V1, .. PsAbiLevels.V2, .. PsAbiLevels.V3]),
        new(CpuTemplateNames.V4, [.. PsAbiLevels.V1, .. PsAbiLevels.V2, .. PsAbiLevels.V3, .. PsAbiLevels.V4]),
    ];

    private readonly CpuFeature[] _required;
    private readonly Dictionary<(uint Function, uint Index, CpuidRegister Register), uint> _allowed = new(KernelFeatures.Masks);

    private CpuTemplate(string name, CpuFeature[] required)
    {
        Name = name;
        _required = required;
        foreach (CpuFeature f in required)
        {
            Allow(f.Function, f.Register, f.Mask);

            // AMD repeats the first features of leaf 1.
            if (f is { Function: 1, Register: Edx } && (f.Mask & KernelFeatures.RepeatedByAmd) != 0)
            {
                Allow(0x8000_0001, Edx, f.Mask);
            }
        }

        if (Allowed(Xsave, 0, Eax) != 0)
        {
            Allow(Xsave, Eax, X87AndSse);
        }
    }

    /// <summary>One of <see cref="CpuTemplateNames"/>.</summary>
    public string Name { get; }

    /// <summary>The template of a name; null when there is none.</summary>
    public static CpuTemplate? Find(string name) => Array.Find(All, t => t.Name == name);

    /// <summary>Throws when KVM on this host lacks what the template promises.</summary>
    /// <param name="supported">KVM_GET_SUPPORTED_CPUID.</param>
    /// <exception cref="ConfigException">The message names what is missing.</exception>
    public void Require(ReadOnlySpan<kvm_cpuid_entry2> supported)
    {
        List<string> missing = [];
        foreach (CpuFeature f in _required)
        {
            if (!f.IsIn(supported))
            {
                missing.Add(f.Name);
            }
        }

        if (missing.Count > 0)
        {
            throw new ConfigException($"cpuTemplate: {Name} is not possible on this host, which lacks {string.Join(", ", missing)}");
        }
    }

    /// <summary>Takes away what the template does not let through.</summary>
    public void Apply(Span<kvm_cpuid_entry2> leaves)
    {
        if (this == Host)
        {
            return;
        }

        uint xcr0 = 0;
        uint size = LegacyXsaveBytes;
        foreach (ref kvm_cpuid_entry2 e in leaves)
        {
            if (!KernelFeatures.IsKept(e.function))
            {
                Filter(ref e);
            }

            if (e is { function: Xsave, index: 0 })
            {
                xcr0 = e.eax;
            }
        }

        // A component's sub-leaf tells where it lies in the area that XSAVE writes.
        foreach (ref kvm_cpuid_entry2 e in leaves)
        {
            if (e is { function: Xsave, index: > 1 and < 32 } && (xcr0 & (1u << (int)e.index)) != 0)
            {
                size = Math.Max(size, e.eax + e.ebx);
            }
            else if (e is { function: Xsave, index: > 1 })
            {
                e.eax = e.ebx = e.ecx = e.edx = 0;
            }
        }

        foreach (ref kvm_cpuid_entry2 e in leaves)
        {
            if (e is { function: Xsave, index: 0 })
            {
                e.ebx = e.ecx = xcr0 == 0 ? 0 : size;
            }
            else if (e is { function: Xsave, index: 1 } && xcr0 == 0)
            {
                e.eax = e.ebx = 0;
            }
        }
    }

    private void Filter(ref kvm_cpuid_entry2 e)
    {
        // What a state component needs is decided with XCR0.
        if (e is { function: Xsave, index: > 1 })
        {
            return;
        }

        e.eax &= Allowed(e.function, e.index, Eax);
        e.ebx &= Allowed(e.function, e.index, Ebx);
        e.ecx &= Allowed(e.function, e.index, Ecx);
        e.edx &= Allowed(e.function, e.index, Edx);
    }

    private void Allow(uint function, CpuidRegister register, uint mask) => _allowed[(function, 0, register)] = Allowed(function, 0, register) | mask;

    private uint Allowed(uint function, uint index, CpuidRegister register) => _allowed.GetValueOrDefault((function, index, register));
}
