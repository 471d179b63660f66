namespace MicroVm.VmmControl;

/// <summary>
/// What CPUID may tell a guest of the host's processor (<see cref="VmmConfig.CpuTemplate"/>). The levels are those of the x86-64 psABI,
/// section 3.1.1: a guest has the instructions of its level, no others, and what only its kernel uses as the host has it.
/// </summary>
public static class CpuTemplateNames
{
    /// <summary>Everything that KVM supports on this host.</summary>
    public const string Host = "host";

    /// <summary>SSE4.2, POPCNT, CMPXCHG16B: processors since 2009. No XSAVE, so no vector registers of more than 128 bits.</summary>
    public const string V2 = "x86-64-v2";

    /// <summary>AVX2, FMA, BMI, MOVBE: processors since Haswell and Excavator.</summary>
    public const string V3 = "x86-64-v3";

    /// <summary>AVX-512 F, BW, CD, DQ, VL: processors since Skylake-SP and Zen 4.</summary>
    public const string V4 = "x86-64-v4";

    /// <summary>All of them.</summary>
    public static IReadOnlyList<string> All { get; } = [Host, V2, V3, V4];
}
