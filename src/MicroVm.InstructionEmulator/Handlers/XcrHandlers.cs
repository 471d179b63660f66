using System.Buffers.Binary;
using Iced.Intel;

namespace MicroVm.InstructionEmulator.Handlers;

/// <summary>XGETBV, XSETBV, RDPKRU, WRPKRU.</summary>
internal static class XcrHandlers
{
    private const int PkruComponent = 9;
    private const ulong Bndregs = 1 << 3;
    private const ulong Bndcsr = 1 << 4;
    private const ulong Avx512 = 0xE0;
    private const ulong Amx = 3 << 17;

    public static void Register(HandlerTable table)
    {
        table.Add(Mnemonic.Xgetbv, "xgetbv", Xgetbv);
        table.Add(Mnemonic.Xsetbv, "xsetbv", Xsetbv);
        table.Add(Mnemonic.Rdpkru, "rdpkru", Rdpkru);
        table.Add(Mnemonic.Wrpkru, "wrpkru", Wrpkru);
    }

    /// <summary>The rules for XCR0 (Intel SDM volume 1, 13.3), besides the processor having the components.</summary>
    internal static bool IsValidXcr0(ulong value, ulong supported) =>
        (value & ExtendedState.X87) != 0
        && (value & ~supported) == 0
        && ((value & ExtendedState.Avx) == 0 || (value & ExtendedState.Sse) != 0)
        && (value & (Bndregs | Bndcsr)) is 0 or (Bndregs | Bndcsr)
        && ((value & Avx512) == 0 || ((value & Avx512) == Avx512 && (value & ExtendedState.Avx) != 0))
        && (value & Amx) is 0 or Amx;

    private static Outcome Xgetbv(AssistCpu cpu, in Instruction instruction)
    {
        if ((cpu.Sregs.cr4 & AssistCpu.Cr4Osxsave) == 0)
        {
            return cpu.UndefinedOpcode();
        }

        uint index = (uint)cpu.Regs.rcx;
        ulong value = cpu.Port.Xcr0;
        if (index == 1 && cpu.Layout.HasXgetbv1)
        {
            cpu.Xstate.Load();
            value &= cpu.Xstate.XstateBv | (cpu.Xstate.Mxcsr != ExtendedState.MxcsrDefault ? ExtendedState.Sse : 0);
        }
        else if (index != 0)
        {
            return cpu.GeneralProtection();
        }

        cpu.Regs.rax = (uint)value;
        cpu.Regs.rdx = value >> 32;
        return Outcome.Done;
    }

    private static Outcome Xsetbv(AssistCpu cpu, in Instruction instruction)
    {
        if ((cpu.Sregs.cr4 & AssistCpu.Cr4Osxsave) == 0)
        {
            return cpu.UndefinedOpcode();
        }

        ulong value = ((ulong)(uint)cpu.Regs.rdx << 32) | (uint)cpu.Regs.rax;
        return cpu.Cpl == 0
            && (uint)cpu.Regs.rcx == 0
            && IsValidXcr0(value, cpu.Xstate.UserComponents)
            && cpu.Port.TrySetXcr0(value)
            ? Outcome.Done
            : cpu.GeneralProtection();
    }

    private static Outcome Rdpkru(AssistCpu cpu, in Instruction instruction)
    {
        if ((cpu.Sregs.cr4 & AssistCpu.Cr4Pke) == 0)
        {
            return cpu.UndefinedOpcode();
        }

        if ((uint)cpu.Regs.rcx != 0)
        {
            return cpu.GeneralProtection();
        }

        cpu.Xstate.Load();
        bool inUse = HasPkru(cpu) && (cpu.Xstate.XstateBv >> PkruComponent & 1) != 0;
        cpu.Regs.rax = inUse ? BinaryPrimitives.ReadUInt32LittleEndian(Pkru(cpu)) : 0;
        cpu.Regs.rdx = 0;
        return Outcome.Done;
    }

    private static Outcome Wrpkru(AssistCpu cpu, in Instruction instruction)
    {
        if ((cpu.Sregs.cr4 & AssistCpu.Cr4Pke) == 0)
        {
            return cpu.UndefinedOpcode();
        }

        if ((uint)cpu.Regs.rcx != 0 || (uint)cpu.Regs.rdx != 0)
        {
            return cpu.GeneralProtection();
        }

        if (!HasPkru(cpu))
        {
            return cpu.Unsupported("this host's XSAVE area has no PKRU");
        }

        cpu.Xstate.Load();
        BinaryPrimitives.WriteUInt32LittleEndian(Pkru(cpu), (uint)cpu.Regs.rax);
        cpu.Xstate.XstateBv |= 1ul << PkruComponent;
        return cpu.StoreXstate();
    }

    private static bool HasPkru(AssistCpu cpu) => (cpu.Xstate.UserComponents >> PkruComponent & 1) != 0;

    private static Span<byte> Pkru(AssistCpu cpu) => cpu.Xstate.Bytes.Slice(cpu.Layout.StandardOffset(PkruComponent), 4);
}
