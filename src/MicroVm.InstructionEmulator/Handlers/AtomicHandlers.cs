using Iced.Intel;

namespace MicroVm.InstructionEmulator.Handlers;

/// <summary>CMPXCHG16B. The narrower atomic instructions are in KVM's emulator.</summary>
internal static class AtomicHandlers
{
    private const int Length = 16;

    public static void Register(HandlerTable table) => table.Add(Mnemonic.Cmpxchg16b, "cmpxchg16b", Cmpxchg16b);

    // Safe: the operand is aligned to its 16 bytes, so it is one piece that Translate checked to be RAM.
    private static unsafe Outcome Cmpxchg16b(AssistCpu cpu, in Instruction instruction)
    {
        Outcome outcome = cpu.Operand.Resolve(in instruction, 0, Length, out ulong address);
        if (outcome != Outcome.Done)
        {
            return outcome;
        }

        if (address % Length != 0)
        {
            return cpu.GeneralProtection();
        }

        // Written to in any case, with the old value when they differ: so the page must be writable.
        outcome = cpu.Operand.Translate(address, Length, PageAccess.Write);
        if (outcome != Outcome.Done)
        {
            return outcome;
        }

        // Aligned, hence within one page and so within one piece. Done with the lock even when the guest did not ask for
        // it, which is stronger and not slower to tell apart.
        UInt128* target = (UInt128*)cpu.Operand.TryGetPointer(Length);
        UInt128 expected = new(cpu.Regs.rdx, cpu.Regs.rax);
        if (AtomicMemory.CompareExchange(target, ref expected, new UInt128(cpu.Regs.rcx, cpu.Regs.rbx)))
        {
            cpu.SetFlags(AssistCpu.FlagZf, AssistCpu.FlagZf);
        }
        else
        {
            cpu.SetFlags(AssistCpu.FlagZf, 0);
            cpu.Regs.rdx = (ulong)(expected >> 64);
            cpu.Regs.rax = (ulong)expected;
        }

        return Outcome.Done;
    }
}
