using MicroVm.Kvm.Native;

namespace MicroVm.Vmm.Machine.Cpu;

/// <summary>
/// AMX (Intel SDM volume 1, chapter 18). KVM reports its instructions even where this process may not give a guest the state
/// that they need, which takes arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM) (Linux, Documentation/arch/x86/xstate.rst): then nothing
/// of it is shown.
/// </summary>
internal static class MatrixExtensions
{
    private const uint TileState = 3u << 17;
    private const uint Tiles = (1u << 22) | (1u << 24) | (1u << 25); // amx_bf16, amx_tile, amx_int8
    private const uint HalfPrecision = 1u << 21; // amx_fp16
    private const uint Complex = 1u << 8; // amx_complex
    private const uint ExtendedFeatureDisable = 1u << 4; // it disables nothing but tile data

    /// <summary>Takes AMX out of <paramref name="leaves"/>, unless XCR0 can have its state.</summary>
    public static void HideWithoutState(Span<kvm_cpuid_entry2> leaves)
    {
        foreach (kvm_cpuid_entry2 e in leaves)
        {
            if (e is { function: 0xd, index: 0 } && (e.eax & TileState) == TileState)
            {
                return;
            }
        }

        foreach (ref kvm_cpuid_entry2 e in leaves)
        {
            switch (e.function, e.index)
            {
                case (7, 0):
                    e.edx &= ~Tiles;
                    break;
                case (7, 1):
                    e.eax &= ~HalfPrecision;
                    e.edx &= ~Complex;
                    break;
                case (0xd, 0):
                    e.eax &= ~TileState;
                    break;
                case (0xd, 1):
                    e.eax &= ~ExtendedFeatureDisable;
                    break;
                case (0xd, 17 or 18) or (0x1d or 0x1e, _):
                    e.eax = e.ebx = e.ecx = e.edx = 0;
                    break;
            }
        }
    }
}
