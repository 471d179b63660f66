using Iced.Intel;

namespace MicroVm.InstructionEmulator.Handlers;

/// <summary>What all XSAVE and XRSTOR forms check before they touch memory, in the processor's order.</summary>
internal static class XstateChecks
{
    /// <summary>XCOMP_BV bit 63: the area is in the compacted format.</summary>
    public const ulong CompactedFormat = 1ul << 63;

    private const int Alignment = 64;
    private const uint Ia32Xss = 0xDA0;

    /// <summary>#UD, #NM, #GP, then the operand's address and the requested-feature bitmap.</summary>
    public static Outcome Enter(
        AssistCpu cpu, in Instruction instruction, bool supported, bool supervisorForm, out ulong address, out ulong requested)
    {
        address = 0;
        requested = 0;
        if (!supported || (cpu.Sregs.cr4 & AssistCpu.Cr4Osxsave) == 0)
        {
            return cpu.UndefinedOpcode();
        }

        if ((cpu.Sregs.cr0 & AssistCpu.Cr0Ts) != 0)
        {
            return cpu.DeviceNotAvailable();
        }

        if (supervisorForm && cpu.Cpl != 0)
        {
            return cpu.GeneralProtection();
        }

        Outcome outcome = cpu.Operand.Resolve(in instruction, 0, XstateLayout.ExtendedOffset, out address);
        if (outcome != Outcome.Done)
        {
            return outcome;
        }

        if (address % Alignment != 0)
        {
            return cpu.GeneralProtection();
        }

        ulong mask = ((ulong)(uint)cpu.Regs.rdx << 32) | (uint)cpu.Regs.rax;
        ulong xcr0 = cpu.Port.Xcr0;
        requested = mask & xcr0;
        if ((xcr0 & ~cpu.Xstate.UserComponents) != 0)
        {
            return cpu.Unsupported($"XCR0 is 0x{xcr0:x}, of which KVM's XSAVE area of {cpu.Port.XsaveSize} bytes holds 0x{cpu.Xstate.UserComponents & xcr0:x}");
        }

        if (supervisorForm && (mask & cpu.Layout.SupervisorComponents) != 0)
        {
            // IA32_XSS is asked for only when it matters; Linux 6.1 enables nothing in it.
            if (!TryGetSupervisorMask(cpu, out ulong xss) || (mask & xss) != 0)
            {
                return cpu.Unsupported($"it asks for supervisor state (IA32_XSS 0x{xss:x}), which KVM's XSAVE area does not hold");
            }
        }

        return Outcome.Done;
    }

    /// <summary>Bits allowed in a compacted area that only the supervisor forms may have.</summary>
    public static bool TryGetSupervisorMask(AssistCpu cpu, out ulong xss) => cpu.Port.TryGetMsr(Ia32Xss, out xss);

    /// <summary>True for the forms that keep 64-bit x87 pointers.</summary>
    public static bool HasRexW(in Instruction instruction) => instruction.Mnemonic
        is Mnemonic.Xsave64 or Mnemonic.Xsaveopt64 or Mnemonic.Xsavec64 or Mnemonic.Xsaves64
        or Mnemonic.Xrstor64 or Mnemonic.Xrstors64;

    /// <summary>Bytes of the XMM registers that exist: sixteen in 64-bit mode, else eight.</summary>
    public static int XmmLength(AssistCpu cpu) => cpu.Bitness == 64 ? 256 : 128;
}
