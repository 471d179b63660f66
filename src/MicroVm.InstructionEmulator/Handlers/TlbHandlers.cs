using System.Runtime.InteropServices;
using Iced.Intel;

namespace MicroVm.InstructionEmulator.Handlers;

/// <summary>INVPCID: every form flushes everything, which is more than asked for and always allowed.</summary>
internal static class TlbHandlers
{
    private const ulong AllContextsButGlobal = 3;
    private const ulong SingleContext = 1;
    private const ulong MaxPcid = 0xFFF;

    public static void Register(HandlerTable table) => table.Add(Mnemonic.Invpcid, "invpcid", Invpcid);

    private static Outcome Invpcid(AssistCpu cpu, in Instruction instruction)
    {
        if (cpu.Cpl != 0)
        {
            return cpu.GeneralProtection();
        }

        Span<ulong> descriptor = stackalloc ulong[2];
        Outcome outcome = cpu.Operand.Translate(in instruction, 1, 16, PageAccess.Read);
        if (outcome != Outcome.Done)
        {
            return outcome;
        }

        cpu.Operand.CopyFromGuest(0, MemoryMarshal.AsBytes(descriptor));
        ulong type = cpu.ReadRegister(instruction.Op0Register);
        bool usesPcid = type <= SingleContext;
        if (type > AllContextsButGlobal
            || (usesPcid && descriptor[0] > MaxPcid)
            || (type == 0 && !cpu.IsCanonical(descriptor[1])))
        {
            return cpu.GeneralProtection();
        }

        cpu.Port.FlushTlb();
        return Outcome.Done;
    }
}
