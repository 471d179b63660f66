using Iced.Intel;

namespace MicroVm.InstructionEmulator.Handlers;

/// <summary>MULX, ADCX, ADOX: the multi-word arithmetic of big-number code. And MOVBE.</summary>
internal static class WideMultiplyHandlers
{
    public static void Register(HandlerTable table)
    {
        table.Add(Mnemonic.Mulx, "mulx", Mulx);
        table.Add(Mnemonic.Adcx, "adcx", static (AssistCpu c, in Instruction i) => AddWith(c, in i, AssistCpu.FlagCf));
        table.Add(Mnemonic.Adox, "adox", static (AssistCpu c, in Instruction i) => AddWith(c, in i, AssistCpu.FlagOf));
        table.Add(Mnemonic.Movbe, "movbe", Movbe);
    }

    private static Outcome Mulx(AssistCpu cpu, in Instruction instruction)
    {
        Outcome outcome = cpu.ReadOperand(in instruction, 2, out ulong source);
        if (outcome != Outcome.Done)
        {
            return outcome;
        }

        bool wide = AssistCpu.OperandBits(in instruction, 0) == 64;
        ulong low;
        ulong high;
        if (wide)
        {
            high = Math.BigMul(cpu.Regs.rdx, source, out low);
        }
        else
        {
            ulong product = (ulong)(uint)cpu.Regs.rdx * (uint)source;
            low = (uint)product;
            high = product >> 32;
        }

        // The high half is written last, so it stays when both destinations are the same register.
        cpu.WriteRegister(instruction.Op1Register, low);
        cpu.WriteRegister(instruction.Op0Register, high);
        return Outcome.Done;
    }

    private static Outcome AddWith(AssistCpu cpu, in Instruction instruction, ulong carryFlag)
    {
        Outcome outcome = cpu.ReadOperand(in instruction, 1, out ulong source);
        if (outcome == Outcome.Done)
        {
            int bits = AssistCpu.OperandBits(in instruction, 0);
            UInt128 sum = (UInt128)cpu.ReadRegister(instruction.Op0Register) + source
                + ((cpu.Regs.rflags & carryFlag) != 0 ? 1u : 0u);
            cpu.WriteRegister(instruction.Op0Register, (ulong)sum);
            cpu.SetFlags(carryFlag, (sum >> bits) != 0 ? carryFlag : 0);
        }

        return outcome;
    }

    private static Outcome Movbe(AssistCpu cpu, in Instruction instruction)
    {
        Outcome outcome = cpu.ReadOperand(in instruction, 1, out ulong source);
        if (outcome != Outcome.Done)
        {
            return outcome;
        }

        int bits = AssistCpu.OperandBits(in instruction, 0);
        ulong value = System.Buffers.Binary.BinaryPrimitives.ReverseEndianness(source) >> (64 - bits);
        return cpu.WriteOperand(in instruction, 0, value);
    }
}
