using System.Numerics;
using Iced.Intel;

namespace MicroVm.InstructionEmulator.Handlers;

/// <summary>POPCNT, LZCNT, TZCNT. Flags that the manuals leave undefined stay as they were.</summary>
internal static class BitCountHandlers
{
    public static void Register(HandlerTable table)
    {
        table.Add(Mnemonic.Popcnt, "popcnt", Popcnt);
        table.Add(Mnemonic.Lzcnt, "lzcnt", Lzcnt);
        table.Add(Mnemonic.Tzcnt, "tzcnt", Tzcnt);
    }

    private static Outcome Popcnt(AssistCpu cpu, in Instruction instruction)
    {
        Outcome outcome = cpu.ReadOperand(in instruction, 1, out ulong source);
        if (outcome == Outcome.Done)
        {
            cpu.WriteRegister(instruction.Op0Register, (ulong)BitOperations.PopCount(source));
            cpu.SetFlags(AssistCpu.Arithmetic, source == 0 ? AssistCpu.FlagZf : 0);
        }

        return outcome;
    }

    private static Outcome Lzcnt(AssistCpu cpu, in Instruction instruction)
    {
        Outcome outcome = cpu.ReadOperand(in instruction, 1, out ulong source);
        if (outcome == Outcome.Done)
        {
            int bits = AssistCpu.OperandBits(in instruction, 0);
            Finish(cpu, in instruction, source, BitOperations.LeadingZeroCount(source) - (64 - bits));
        }

        return outcome;
    }

    private static Outcome Tzcnt(AssistCpu cpu, in Instruction instruction)
    {
        Outcome outcome = cpu.ReadOperand(in instruction, 1, out ulong source);
        if (outcome == Outcome.Done)
        {
            int bits = AssistCpu.OperandBits(in instruction, 0);
            Finish(cpu, in instruction, source, Math.Min(BitOperations.TrailingZeroCount(source), bits));
        }

        return outcome;
    }

    private static void Finish(AssistCpu cpu, in Instruction instruction, ulong source, int result)
    {
        cpu.WriteRegister(instruction.Op0Register, (ulong)result);
        cpu.SetFlags(
            AssistCpu.FlagCf | AssistCpu.FlagZf,
            (source == 0 ? AssistCpu.FlagCf : 0) | (result == 0 ? AssistCpu.FlagZf : 0));
    }
}
