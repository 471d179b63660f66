using Iced.Intel;

namespace MicroVm.InstructionEmulator.Handlers;

/// <summary>CLAC and STAC.</summary>
internal static class FlagHandlers
{
    private const int SmapBit = 1 << 20;

    private static readonly bool HasSmap = (System.Runtime.Intrinsics.X86.X86Base.CpuId(7, 0).Ebx & SmapBit) != 0;

    public static void Register(HandlerTable table)
    {
        table.Add(Mnemonic.Clac, "clac", static (AssistCpu c, in Instruction _) => SetAc(c, 0));
        table.Add(Mnemonic.Stac, "stac", static (AssistCpu c, in Instruction _) => SetAc(c, AssistCpu.FlagAc));
    }

    private static Outcome SetAc(AssistCpu cpu, ulong value)
    {
        if (cpu.Cpl != 0 || !HasSmap)
        {
            return cpu.UndefinedOpcode();
        }

        cpu.SetFlags(AssistCpu.FlagAc, value);
        return Outcome.Done;
    }
}
