using Iced.Intel;

namespace MicroVm.InstructionEmulator.Handlers;

/// <summary>Hints and cache control: nothing to do beyond the faults of their operand, guest memory being cached RAM.</summary>
internal static class HintHandlers
{
    public static void Register(HandlerTable table)
    {
        table.Add(Mnemonic.Endbr64, "endbr64", Nothing);
        table.Add(Mnemonic.Endbr32, "endbr32", Nothing);
        table.Add(Mnemonic.Pause, "pause", Nothing);
        table.Add(Mnemonic.Prefetch, "prefetch", Nothing);
        table.Add(Mnemonic.Prefetchw, "prefetchw", Nothing);
        table.Add(Mnemonic.Prefetchwt1, "prefetchwt1", Nothing);
        table.Add(Mnemonic.Prefetchnta, "prefetchnta", Nothing);
        table.Add(Mnemonic.Prefetcht0, "prefetcht0", Nothing);
        table.Add(Mnemonic.Prefetcht1, "prefetcht1", Nothing);
        table.Add(Mnemonic.Prefetcht2, "prefetcht2", Nothing);
        table.Add(Mnemonic.Serialize, "serialize", Fence);
        table.Add(Mnemonic.Lfence, "lfence", Fence);
        table.Add(Mnemonic.Mfence, "mfence", Fence);
        table.Add(Mnemonic.Sfence, "sfence", Fence);
        table.Add(Mnemonic.Clflush, "clflush", CacheLine);
        table.Add(Mnemonic.Clflushopt, "clflushopt", CacheLine);
        table.Add(Mnemonic.Clwb, "clwb", CacheLine);
        table.Add(Mnemonic.Cldemote, "cldemote", Nothing);
        table.Add(Mnemonic.Wbinvd, "wbinvd", Privileged);
        table.Add(Mnemonic.Wbnoinvd, "wbnoinvd", Privileged);
        table.Add(Mnemonic.Invd, "invd", Privileged);
    }

    private static Outcome Nothing(AssistCpu cpu, in Instruction instruction) => Outcome.Done;

    private static Outcome Fence(AssistCpu cpu, in Instruction instruction)
    {
        Interlocked.MemoryBarrier();
        return Outcome.Done;
    }

    private static Outcome CacheLine(AssistCpu cpu, in Instruction instruction)
    {
        Interlocked.MemoryBarrier();
        return cpu.Operand.Translate(in instruction, 0, 1, PageAccess.Read);
    }

    private static Outcome Privileged(AssistCpu cpu, in Instruction instruction) =>
        cpu.Cpl == 0 ? Outcome.Done : cpu.GeneralProtection();
}
