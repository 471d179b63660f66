using System.Numerics;
using Iced.Intel;

namespace MicroVm.InstructionEmulator.Handlers;

/// <summary>BMI1, BMI2's shifts and bit fields, and CRC32. Flags that the manuals leave undefined stay as they were.</summary>
internal static class BitManipulationHandlers
{
    private const uint Crc32cPolynomial = 0x82F6_3B78;

    private delegate (ulong Result, bool Carry) UnaryOperation(ulong source, ulong mask);

    public static void Register(HandlerTable table)
    {
        table.Add(Mnemonic.Andn, "andn", Andn);
        table.Add(Mnemonic.Bextr, "bextr", Bextr);
        table.Add(Mnemonic.Bzhi, "bzhi", Bzhi);
        table.Add(Mnemonic.Blsi, "blsi", static (AssistCpu c, in Instruction i) => Lowest(c, in i, static (s, _) => (s & (0 - s), s != 0)));
        table.Add(Mnemonic.Blsr, "blsr", static (AssistCpu c, in Instruction i) => Lowest(c, in i, static (s, _) => (s & (s - 1), s == 0)));
        table.Add(Mnemonic.Blsmsk, "blsmsk", static (AssistCpu c, in Instruction i) => Lowest(c, in i, static (s, m) => ((s ^ (s - 1)) & m, s == 0)));
        table.Add(Mnemonic.Rorx, "rorx", Rorx);
        table.Add(Mnemonic.Sarx, "sarx", static (AssistCpu c, in Instruction i) => Shift(c, in i, static (s, n, bits) => (ulong)((long)(s << (64 - bits)) >> (64 - bits) >> n)));
        table.Add(Mnemonic.Shlx, "shlx", static (AssistCpu c, in Instruction i) => Shift(c, in i, static (s, n, _) => s << n));
        table.Add(Mnemonic.Shrx, "shrx", static (AssistCpu c, in Instruction i) => Shift(c, in i, static (s, n, _) => s >> n));
        table.Add(Mnemonic.Pdep, "pdep", static (AssistCpu c, in Instruction i) => Scatter(c, in i, deposit: true));
        table.Add(Mnemonic.Pext, "pext", static (AssistCpu c, in Instruction i) => Scatter(c, in i, deposit: false));
        table.Add(Mnemonic.Crc32, "crc32", Crc32);
    }

    private static ulong Mask(int bits) => bits == 64 ? ulong.MaxValue : (1ul << bits) - 1;

    private static ulong SignZero(ulong result, int bits) =>
        (result == 0 ? AssistCpu.FlagZf : 0) | ((result >> (bits - 1) & 1) != 0 ? AssistCpu.FlagSf : 0);

    private static Outcome Andn(AssistCpu cpu, in Instruction instruction)
    {
        Outcome outcome = cpu.ReadOperand(in instruction, 2, out ulong second);
        if (outcome == Outcome.Done)
        {
            int bits = AssistCpu.OperandBits(in instruction, 0);
            ulong result = ~cpu.ReadRegister(instruction.Op1Register) & second & Mask(bits);
            cpu.WriteRegister(instruction.Op0Register, result);
            cpu.SetFlags(
                AssistCpu.FlagSf | AssistCpu.FlagZf | AssistCpu.FlagOf | AssistCpu.FlagCf, SignZero(result, bits));
        }

        return outcome;
    }

    private static Outcome Bextr(AssistCpu cpu, in Instruction instruction)
    {
        Outcome outcome = cpu.ReadOperand(in instruction, 1, out ulong source);
        if (outcome == Outcome.Done)
        {
            ulong control = cpu.ReadRegister(instruction.Op2Register);
            int start = (byte)control;
            int length = (byte)(control >> 8);
            ulong field = start < 64 ? source >> start : 0;
            ulong result = length < 64 ? field & ((1ul << length) - 1) : field;
            cpu.WriteRegister(instruction.Op0Register, result);
            cpu.SetFlags(AssistCpu.FlagZf | AssistCpu.FlagOf | AssistCpu.FlagCf, result == 0 ? AssistCpu.FlagZf : 0);
        }

        return outcome;
    }

    private static Outcome Bzhi(AssistCpu cpu, in Instruction instruction)
    {
        Outcome outcome = cpu.ReadOperand(in instruction, 1, out ulong source);
        if (outcome == Outcome.Done)
        {
            int bits = AssistCpu.OperandBits(in instruction, 0);
            int index = (byte)cpu.ReadRegister(instruction.Op2Register);
            ulong result = index < bits ? source & ((1ul << index) - 1) : source;
            cpu.WriteRegister(instruction.Op0Register, result);
            cpu.SetFlags(
                AssistCpu.FlagSf | AssistCpu.FlagZf | AssistCpu.FlagOf | AssistCpu.FlagCf,
                SignZero(result, bits) | (index > bits - 1 ? AssistCpu.FlagCf : 0));
        }

        return outcome;
    }

    private static Outcome Lowest(AssistCpu cpu, in Instruction instruction, UnaryOperation operation)
    {
        Outcome outcome = cpu.ReadOperand(in instruction, 1, out ulong source);
        if (outcome == Outcome.Done)
        {
            int bits = AssistCpu.OperandBits(in instruction, 0);
            (ulong result, bool carry) = operation(source, Mask(bits));
            cpu.WriteRegister(instruction.Op0Register, result);
            cpu.SetFlags(
                AssistCpu.FlagSf | AssistCpu.FlagZf | AssistCpu.FlagOf | AssistCpu.FlagCf,
                SignZero(result, bits) | (carry ? AssistCpu.FlagCf : 0));
        }

        return outcome;
    }

    private static Outcome Rorx(AssistCpu cpu, in Instruction instruction)
    {
        Outcome outcome = cpu.ReadOperand(in instruction, 1, out ulong source);
        if (outcome == Outcome.Done)
        {
            int count = instruction.Immediate8;
            ulong result = AssistCpu.OperandBits(in instruction, 0) == 64
                ? BitOperations.RotateRight(source, count)
                : BitOperations.RotateRight((uint)source, count);
            cpu.WriteRegister(instruction.Op0Register, result);
        }

        return outcome;
    }

    private static Outcome Shift(AssistCpu cpu, in Instruction instruction, Func<ulong, int, int, ulong> operation)
    {
        Outcome outcome = cpu.ReadOperand(in instruction, 1, out ulong source);
        if (outcome == Outcome.Done)
        {
            int bits = AssistCpu.OperandBits(in instruction, 0);
            int count = (int)(cpu.ReadRegister(instruction.Op2Register) & (ulong)(bits - 1));
            cpu.WriteRegister(instruction.Op0Register, operation(source, count, bits));
        }

        return outcome;
    }

    private static Outcome Scatter(AssistCpu cpu, in Instruction instruction, bool deposit)
    {
        Outcome outcome = cpu.ReadOperand(in instruction, 2, out ulong mask);
        if (outcome == Outcome.Done)
        {
            ulong source = cpu.ReadRegister(instruction.Op1Register);
            ulong result = 0;
            for (int i = 0; mask != 0; i++, mask &= mask - 1)
            {
                ulong bit = mask & (0 - mask);
                result |= deposit
                    ? (source >> i & 1) != 0 ? bit : 0
                    : (source & bit) != 0 ? 1ul << i : 0;
            }

            cpu.WriteRegister(instruction.Op0Register, result);
        }

        return outcome;
    }

    private static Outcome Crc32(AssistCpu cpu, in Instruction instruction)
    {
        Outcome outcome = cpu.ReadOperand(in instruction, 1, out ulong source);
        if (outcome == Outcome.Done)
        {
            uint crc = (uint)cpu.ReadRegister(instruction.Op0Register);
            int bits = AssistCpu.OperandBits(in instruction, 1);
            for (int i = 0; i < bits; i++)
            {
                uint low = (crc ^ (uint)(source >> i)) & 1;
                crc = (crc >> 1) ^ (low != 0 ? Crc32cPolynomial : 0);
            }

            cpu.WriteRegister(instruction.Op0Register, crc);
        }

        return outcome;
    }
}
