using Iced.Intel;

namespace MicroVm.InstructionEmulator.Handlers;

/// <summary>RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE.</summary>
internal static class SegmentBaseHandlers
{
    public static void Register(HandlerTable table)
    {
        table.Add(Mnemonic.Rdfsbase, "rdfsbase", static (AssistCpu c, in Instruction i) => Read(c, in i, ref c.Sregs.fs.@base));
        table.Add(Mnemonic.Rdgsbase, "rdgsbase", static (AssistCpu c, in Instruction i) => Read(c, in i, ref c.Sregs.gs.@base));
        table.Add(Mnemonic.Wrfsbase, "wrfsbase", static (AssistCpu c, in Instruction i) => Write(c, in i, ref c.Sregs.fs.@base));
        table.Add(Mnemonic.Wrgsbase, "wrgsbase", static (AssistCpu c, in Instruction i) => Write(c, in i, ref c.Sregs.gs.@base));
    }

    private static Outcome Read(AssistCpu cpu, in Instruction instruction, ref ulong segmentBase)
    {
        if (!IsEnabled(cpu))
        {
            return cpu.UndefinedOpcode();
        }

        cpu.WriteRegister(instruction.Op0Register, segmentBase);
        return Outcome.Done;
    }

    private static Outcome Write(AssistCpu cpu, in Instruction instruction, ref ulong segmentBase)
    {
        if (!IsEnabled(cpu))
        {
            return cpu.UndefinedOpcode();
        }

        ulong value = cpu.ReadRegister(instruction.Op0Register);
        if (!cpu.IsCanonical(value))
        {
            return cpu.GeneralProtection();
        }

        segmentBase = value;
        cpu.Port.MarkSregsChanged();
        return Outcome.Done;
    }

    private static bool IsEnabled(AssistCpu cpu) => cpu.Bitness == 64 && (cpu.Sregs.cr4 & AssistCpu.Cr4Fsgsbase) != 0;
}
