using static MicroVm.Vmm.Machine.Cpu.CpuidRegister;

namespace MicroVm.Vmm.Machine.Cpu;

/// <summary>The micro-architecture levels of the x86-64 psABI (section 3.1.1, table 3.1), each without those below it.</summary>
internal static class PsAbiLevels
{
    private const uint Extended = 0x8000_0001;
    private const uint Xsave = 0xd;

    /// <summary>The baseline: what every 64-bit processor has.</summary>
    internal static readonly CpuFeature[] V1 =
    [
        new("fpu", 1, 0, Edx, 0), new("cx8", 1, 0, Edx, 8), new("cmov", 1, 0, Edx, 15), new("mmx", 1, 0, Edx, 23), new("fxsr", 1, 0, Edx, 24),
        new("sse", 1, 0, Edx, 25), new("sse2", 1, 0, Edx, 26), new("syscall", Extended, 0, Edx, 11), new("lm", Extended, 0, Edx, 29),
    ];

    internal static readonly CpuFeature[] V2 =
    [
        new("pni", 1, 0, Ecx, 0), new("ssse3", 1, 0, Ecx, 9), new("cx16", 1, 0, Ecx, 13), new("sse4_1", 1, 0, Ecx, 19), new("sse4_2", 1, 0, Ecx, 20),
        new("popcnt", 1, 0, Ecx, 23), new("lahf_lm", Extended, 0, Ecx, 0),
    ];

    /// <summary>With the vector state that its instructions work on: XCR0 bit 2.</summary>
    internal static readonly CpuFeature[] V3 =
    [
        new("fma", 1, 0, Ecx, 12), new("movbe", 1, 0, Ecx, 22), new("xsave", 1, 0, Ecx, 26), new("avx", 1, 0, Ecx, 28), new("f16c", 1, 0, Ecx, 29),
        new("bmi1", 7, 0, Ebx, 3), new("avx2", 7, 0, Ebx, 5), new("bmi2", 7, 0, Ebx, 8), new("abm", Extended, 0, Ecx, 5),
        new("the AVX state", Xsave, 0, Eax, 2),
    ];

    /// <summary>With XCR0 bits 5 to 7.</summary>
    internal static readonly CpuFeature[] V4 =
    [
        new("avx512f", 7, 0, Ebx, 16), new("avx512dq", 7, 0, Ebx, 17), new("avx512cd", 7, 0, Ebx, 28), new("avx512bw", 7, 0, Ebx, 30),
        new("avx512vl", 7, 0, Ebx, 31), new("the AVX-512 mask state", Xsave, 0, Eax, 5), new("the AVX-512 upper halves' state", Xsave, 0, Eax, 6),
        new("the AVX-512 upper registers' state", Xsave, 0, Eax, 7),
    ];
}
