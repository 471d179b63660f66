using Iced.Intel;

namespace MicroVm.InstructionEmulator.Handlers;

/// <summary>RDTSCP and RDPID.</summary>
internal static class TimestampHandlers
{
    private const uint Ia32Tsc = 0x10;
    private const uint Ia32TscAux = 0xC000_0103;
    private const ulong Cr4Tsd = 4;

    public static void Register(HandlerTable table)
    {
        table.Add(Mnemonic.Rdtscp, "rdtscp", Rdtscp);
        table.Add(Mnemonic.Rdpid, "rdpid", Rdpid);
    }

    private static Outcome Rdtscp(AssistCpu cpu, in Instruction instruction)
    {
        if ((cpu.Sregs.cr4 & Cr4Tsd) != 0 && cpu.Cpl != 0)
        {
            return cpu.GeneralProtection();
        }

        if (!cpu.Port.TryGetMsr(Ia32Tsc, out ulong tsc) || !cpu.Port.TryGetMsr(Ia32TscAux, out ulong aux))
        {
            return cpu.Unsupported("KVM does not give the time stamp counter or TSC_AUX");
        }

        cpu.Regs.rax = (uint)tsc;
        cpu.Regs.rdx = tsc >> 32;
        cpu.Regs.rcx = (uint)aux;
        return Outcome.Done;
    }

    private static Outcome Rdpid(AssistCpu cpu, in Instruction instruction)
    {
        if (!cpu.Port.TryGetMsr(Ia32TscAux, out ulong aux))
        {
            return cpu.Unsupported("KVM does not give TSC_AUX");
        }

        cpu.WriteRegister(instruction.Op0Register, (uint)aux);
        return Outcome.Done;
    }
}
