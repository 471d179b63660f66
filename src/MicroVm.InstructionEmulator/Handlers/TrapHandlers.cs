using Iced.Intel;
using MicroVm.Kvm.Native;

namespace MicroVm.InstructionEmulator.Handlers;

/// <summary>Instructions that raise exceptions: int3, int n, into, int1, ud0..ud2, and fwait for pending x87 ones.</summary>
internal static class TrapHandlers
{
    private const byte FswErrorSummary = 0x80;

    public static void Register(HandlerTable table)
    {
        table.Add(Mnemonic.Int3, "int3", static (AssistCpu cpu, in Instruction _) => cpu.Trap(KvmAbi.BP_VECTOR));
        table.Add(Mnemonic.Int, "int", Int);
        table.Add(Mnemonic.Into, "into", Into);
        table.Add(Mnemonic.Ud0, "ud0", UndefinedOpcode);
        table.Add(Mnemonic.Ud1, "ud1", UndefinedOpcode);
        table.Add(Mnemonic.Ud2, "ud2", UndefinedOpcode);
        table.Add(Mnemonic.Wait, "fwait", Fwait);
    }

    private static Outcome Int(AssistCpu cpu, in Instruction instruction) =>
        cpu.Trap(instruction.Immediate8, softwareInterrupt: true);

    private static Outcome Into(AssistCpu cpu, in Instruction instruction)
    {
        if (cpu.Bitness == 64)
        {
            return cpu.UndefinedOpcode();
        }

        return (cpu.Regs.rflags & AssistCpu.FlagOf) != 0 ? cpu.Trap(KvmAbi.OF_VECTOR) : Outcome.Done;
    }

    private static Outcome UndefinedOpcode(AssistCpu cpu, in Instruction instruction) => cpu.UndefinedOpcode();

    private static Outcome Fwait(AssistCpu cpu, in Instruction instruction)
    {
        const ulong Monitor = AssistCpu.Cr0Mp | AssistCpu.Cr0Ts;
        if ((cpu.Sregs.cr0 & Monitor) == Monitor)
        {
            return cpu.DeviceNotAvailable();
        }

        cpu.Xstate.Load();
        if ((cpu.Xstate.XstateBv & ExtendedState.X87) == 0 || (cpu.Xstate.Bytes[ExtendedState.FswOffset] & FswErrorSummary) == 0)
        {
            return Outcome.Done;
        }

        return (cpu.Sregs.cr0 & AssistCpu.Cr0Ne) != 0
            ? cpu.Fault(KvmAbi.MF_VECTOR)
            : cpu.Unsupported("an x87 exception is pending with CR0.NE clear, which asks for the FERR# pin");
    }
}
