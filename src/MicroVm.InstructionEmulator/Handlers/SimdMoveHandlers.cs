using System.Runtime.InteropServices;
using Iced.Intel;
using MicroVm.Kvm.Native;

namespace MicroVm.InstructionEmulator.Handlers;

/// <summary>
/// 128-bit moves and bitwise operations of legacy SSE, in case a kernel uses them to copy or clear. Wider vectors and
/// arithmetic are not here: kernels that use those (RAID, crypto) pick them by CPUID and have plain code beside them.
/// </summary>
internal static class SimdMoveHandlers
{
    private const int VectorLength = 16;

    public static void Register(HandlerTable table)
    {
        table.Add(Mnemonic.Movups, "movups", static (AssistCpu c, in Instruction i) => Move(c, in i, aligned: false));
        table.Add(Mnemonic.Movupd, "movupd", static (AssistCpu c, in Instruction i) => Move(c, in i, aligned: false));
        table.Add(Mnemonic.Movdqu, "movdqu", static (AssistCpu c, in Instruction i) => Move(c, in i, aligned: false));
        table.Add(Mnemonic.Lddqu, "lddqu", static (AssistCpu c, in Instruction i) => Move(c, in i, aligned: false));
        table.Add(Mnemonic.Movaps, "movaps", static (AssistCpu c, in Instruction i) => Move(c, in i, aligned: true));
        table.Add(Mnemonic.Movapd, "movapd", static (AssistCpu c, in Instruction i) => Move(c, in i, aligned: true));
        table.Add(Mnemonic.Movdqa, "movdqa", static (AssistCpu c, in Instruction i) => Move(c, in i, aligned: true));
        table.Add(Mnemonic.Movntps, "movntps", static (AssistCpu c, in Instruction i) => Move(c, in i, aligned: true));
        table.Add(Mnemonic.Movntpd, "movntpd", static (AssistCpu c, in Instruction i) => Move(c, in i, aligned: true));
        table.Add(Mnemonic.Movntdq, "movntdq", static (AssistCpu c, in Instruction i) => Move(c, in i, aligned: true));
        table.Add(Mnemonic.Movntdqa, "movntdqa", static (AssistCpu c, in Instruction i) => Move(c, in i, aligned: true));
        table.Add(Mnemonic.Xorps, "xorps", static (AssistCpu c, in Instruction i) => Combine(c, in i, static (a, b) => a ^ b));
        table.Add(Mnemonic.Xorpd, "xorpd", static (AssistCpu c, in Instruction i) => Combine(c, in i, static (a, b) => a ^ b));
        table.Add(Mnemonic.Pxor, "pxor", static (AssistCpu c, in Instruction i) => Combine(c, in i, static (a, b) => a ^ b));
        table.Add(Mnemonic.Por, "por", static (AssistCpu c, in Instruction i) => Combine(c, in i, static (a, b) => a | b));
        table.Add(Mnemonic.Pand, "pand", static (AssistCpu c, in Instruction i) => Combine(c, in i, static (a, b) => a & b));
    }

    private static Outcome Move(AssistCpu cpu, in Instruction instruction, bool aligned)
    {
        UInt128 value = default;
        Outcome outcome = SseStateHandlers.Enter(cpu, vex: false);
        if (outcome == Outcome.Done)
        {
            outcome = Read(cpu, in instruction, 1, aligned, out value);
        }

        if (outcome != Outcome.Done)
        {
            return outcome;
        }

        if (instruction.Op0Kind == OpKind.Register)
        {
            return WriteRegister(cpu, instruction.Op0Register, value);
        }

        outcome = Locate(cpu, in instruction, 0, aligned, PageAccess.Write);
        if (outcome == Outcome.Done)
        {
            cpu.Operand.CopyToGuest(0, MemoryMarshal.AsBytes(new ReadOnlySpan<UInt128>(in value)));
        }

        return outcome;
    }

    private static Outcome Combine(AssistCpu cpu, in Instruction instruction, Func<UInt128, UInt128, UInt128> operation)
    {
        if (!instruction.Op0Register.IsXMM())
        {
            return cpu.Unsupported("its MMX form is not known here");
        }

        UInt128 second = default;
        Outcome outcome = SseStateHandlers.Enter(cpu, vex: false);
        if (outcome == Outcome.Done)
        {
            outcome = Read(cpu, in instruction, 1, aligned: true, out second);
        }

        if (outcome != Outcome.Done)
        {
            return outcome;
        }

        UInt128 first = ReadRegister(cpu, instruction.Op0Register);
        return WriteRegister(cpu, instruction.Op0Register, operation(first, second));
    }

    private static Outcome Read(AssistCpu cpu, in Instruction instruction, int operand, bool aligned, out UInt128 value)
    {
        value = default;
        if (instruction.GetOpKind(operand) == OpKind.Register)
        {
            value = ReadRegister(cpu, instruction.GetOpRegister(operand));
            return Outcome.Done;
        }

        Outcome outcome = Locate(cpu, in instruction, operand, aligned, PageAccess.Read);
        if (outcome == Outcome.Done)
        {
            cpu.Operand.CopyFromGuest(0, MemoryMarshal.AsBytes(new Span<UInt128>(ref value)));
        }

        return outcome;
    }

    private static Outcome Locate(AssistCpu cpu, in Instruction instruction, int operand, bool aligned, PageAccess access)
    {
        Outcome outcome = cpu.Operand.Resolve(in instruction, operand, VectorLength, out ulong address);
        if (outcome != Outcome.Done)
        {
            return outcome;
        }

        return aligned && address % VectorLength != 0
            ? cpu.Fault(KvmAbi.GP_VECTOR, 0)
            : cpu.Operand.Translate(address, VectorLength, access);
    }

    private static UInt128 ReadRegister(AssistCpu cpu, Register register)
    {
        cpu.Xstate.Load();
        return MemoryMarshal.Read<UInt128>(Xmm(cpu, register));
    }

    private static Outcome WriteRegister(AssistCpu cpu, Register register, UInt128 value)
    {
        cpu.Xstate.Load();
        MemoryMarshal.Write(Xmm(cpu, register), in value);
        return cpu.StoreXstate();
    }

    private static Span<byte> Xmm(AssistCpu cpu, Register register) =>
        cpu.Xstate.Bytes.Slice(ExtendedState.XmmOffset + ((register - Iced.Intel.Register.XMM0) * VectorLength), VectorLength);
}
