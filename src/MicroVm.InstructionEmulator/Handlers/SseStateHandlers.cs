using Iced.Intel;

namespace MicroVm.InstructionEmulator.Handlers;

/// <summary>LDMXCSR and STMXCSR, legacy and VEX.</summary>
internal static class SseStateHandlers
{
    public static void Register(HandlerTable table)
    {
        table.Add(Mnemonic.Ldmxcsr, "ldmxcsr", Ldmxcsr);
        table.Add(Mnemonic.Vldmxcsr, "vldmxcsr", Ldmxcsr);
        table.Add(Mnemonic.Stmxcsr, "stmxcsr", Stmxcsr);
        table.Add(Mnemonic.Vstmxcsr, "vstmxcsr", Stmxcsr);
    }

    /// <summary>What every SSE or AVX instruction checks first.</summary>
    public static Outcome Enter(AssistCpu cpu, bool vex)
    {
        bool enabled = vex
            ? (cpu.Sregs.cr4 & AssistCpu.Cr4Osxsave) != 0 && (cpu.Port.Xcr0 & ExtendedState.Avx) != 0
            : (cpu.Sregs.cr4 & AssistCpu.Cr4Osfxsr) != 0 && (cpu.Sregs.cr0 & AssistCpu.Cr0Em) == 0;
        return !enabled ? cpu.UndefinedOpcode()
            : (cpu.Sregs.cr0 & AssistCpu.Cr0Ts) != 0 ? cpu.DeviceNotAvailable()
            : Outcome.Done;
    }

    private static Outcome Ldmxcsr(AssistCpu cpu, in Instruction instruction)
    {
        Outcome outcome = Enter(cpu, instruction.Mnemonic == Mnemonic.Vldmxcsr);
        if (outcome != Outcome.Done)
        {
            return outcome;
        }

        outcome = cpu.ReadOperand(in instruction, 0, out ulong value);
        if (outcome != Outcome.Done)
        {
            return outcome;
        }

        if ((value & ~(ulong)cpu.Layout.MxcsrMask) != 0)
        {
            return cpu.GeneralProtection();
        }

        cpu.Xstate.Load();
        cpu.Xstate.Mxcsr = (uint)value;
        return cpu.StoreXstate();
    }

    private static Outcome Stmxcsr(AssistCpu cpu, in Instruction instruction)
    {
        Outcome outcome = Enter(cpu, instruction.Mnemonic == Mnemonic.Vstmxcsr);
        if (outcome != Outcome.Done)
        {
            return outcome;
        }

        cpu.Xstate.Load();
        return cpu.WriteOperand(in instruction, 0, cpu.Xstate.Mxcsr);
    }
}
