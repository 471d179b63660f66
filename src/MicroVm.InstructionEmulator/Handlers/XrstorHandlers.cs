using System.Buffers.Binary;
using System.Numerics;
using Iced.Intel;

namespace MicroVm.InstructionEmulator.Handlers;

/// <summary>XRSTOR in both forms, and XRSTORS (Intel SDM volume 1, 13.8 and 13.12).</summary>
internal static class XrstorHandlers
{
    public static void Register(HandlerTable table)
    {
        table.Add(Mnemonic.Xrstor, "xrstor", static (AssistCpu c, in Instruction i) => Restore(c, in i, false));
        table.Add(Mnemonic.Xrstor64, "xrstor64", static (AssistCpu c, in Instruction i) => Restore(c, in i, false));
        table.Add(Mnemonic.Xrstors, "xrstors", static (AssistCpu c, in Instruction i) => Restore(c, in i, true));
        table.Add(Mnemonic.Xrstors64, "xrstors64", static (AssistCpu c, in Instruction i) => Restore(c, in i, true));
    }

    private static Outcome Restore(AssistCpu cpu, in Instruction instruction, bool supervisor)
    {
        bool supported = !supervisor || cpu.Layout.HasXsaves;
        Outcome outcome = XstateChecks.Enter(cpu, in instruction, supported, supervisor, out ulong address, out ulong requested);
        if (outcome != Outcome.Done)
        {
            return outcome;
        }

        outcome = cpu.Operand.Translate(address, XstateLayout.ExtendedOffset, PageAccess.Read);
        if (outcome != Outcome.Done)
        {
            return outcome;
        }

        // Legacy region and header are copied once; only the copy is checked and used.
        Span<byte> head = stackalloc byte[XstateLayout.ExtendedOffset];
        cpu.Operand.CopyFromGuest(0, head);
        ReadOnlySpan<byte> header = head[XstateLayout.HeaderOffset..];
        ulong present = BinaryPrimitives.ReadUInt64LittleEndian(header);
        ulong format = BinaryPrimitives.ReadUInt64LittleEndian(header[8..]);
        bool compacted = (format & XstateChecks.CompactedFormat) != 0;
        ulong xcr0 = cpu.Port.Xcr0;
        if (!IsHeaderValid(cpu, header, present, format, xcr0, supervisor))
        {
            return cpu.GeneralProtection();
        }

        ulong loaded = requested & present;
        bool takesMxcsr = compacted ? (loaded & ExtendedState.Sse) != 0 : (requested & (ExtendedState.Sse | ExtendedState.Avx)) != 0;
        uint mxcsr = BinaryPrimitives.ReadUInt32LittleEndian(head[ExtendedState.MxcsrOffset..]);
        if (takesMxcsr && (mxcsr & ~cpu.Layout.MxcsrMask) != 0)
        {
            return cpu.GeneralProtection();
        }

        int length = compacted ? cpu.Layout.CompactedLength(format, loaded) : cpu.Layout.StandardLength(loaded);
        if (length > XstateLayout.ExtendedOffset)
        {
            outcome = cpu.Operand.Translate(address, length, PageAccess.Read);
            if (outcome != Outcome.Done)
            {
                return outcome;
            }
        }

        // A restore of everything that is enabled needs no old state: one system call less at each context switch.
        if (requested == xcr0)
        {
            cpu.Xstate.Clear();
        }
        else
        {
            cpu.Xstate.Load();
        }

        LoadLegacy(cpu, in instruction, head, requested, loaded);
        if (takesMxcsr)
        {
            cpu.Xstate.Mxcsr = mxcsr;
        }
        else if ((requested & ExtendedState.Sse) != 0)
        {
            cpu.Xstate.Mxcsr = ExtendedState.MxcsrDefault;
        }

        for (ulong rest = requested & ~3ul; rest != 0; rest &= rest - 1)
        {
            int i = BitOperations.TrailingZeroCount(rest);
            Span<byte> component = cpu.Xstate.Bytes.Slice(cpu.Layout.StandardOffset(i), cpu.Layout.Size(i));
            if ((loaded >> i & 1) == 0)
            {
                component.Clear();
            }
            else
            {
                cpu.Operand.CopyFromGuest(compacted ? cpu.Layout.CompactedOffset(format, i) : cpu.Layout.StandardOffset(i), component);
            }
        }

        cpu.Xstate.XstateBv = (cpu.Xstate.XstateBv & ~requested) | loaded;
        return cpu.StoreXstate();
    }

    private static bool IsHeaderValid(
        AssistCpu cpu, ReadOnlySpan<byte> header, ulong present, ulong format, ulong xcr0, bool supervisor)
    {
        if ((format & XstateChecks.CompactedFormat) == 0)
        {
            // Standard form: bytes 8 to 23 are zero.
            return !supervisor && (present & ~xcr0) == 0 && !header[8..24].ContainsAnyExcept((byte)0);
        }

        ulong allowed = xcr0;
        ulong components = format & ~XstateChecks.CompactedFormat;
        if (supervisor && (components & cpu.Layout.SupervisorComponents) != 0)
        {
            allowed |= XstateChecks.TryGetSupervisorMask(cpu, out ulong xss) ? xss : 0;
        }

        return cpu.Layout.HasXsavec
            && (components & ~allowed) == 0
            && (present & ~components) == 0
            && !header[16..64].ContainsAnyExcept((byte)0);
    }

    private static void LoadLegacy(AssistCpu cpu, in Instruction instruction, ReadOnlySpan<byte> head, ulong requested, ulong loaded)
    {
        Span<byte> area = cpu.Xstate.Bytes;
        if ((requested & ExtendedState.X87) != 0)
        {
            Span<byte> control = area[..ExtendedState.MxcsrOffset];
            Span<byte> registers = area[ExtendedState.StOffset..ExtendedState.XmmOffset];
            control.Clear();
            registers.Clear();
            if ((loaded & ExtendedState.X87) == 0)
            {
                BinaryPrimitives.WriteUInt16LittleEndian(control, ExtendedState.FcwDefault);
            }
            else
            {
                head[..ExtendedState.MxcsrOffset].CopyTo(control);
                head[ExtendedState.StOffset..ExtendedState.XmmOffset].CopyTo(registers);
                if (!XstateChecks.HasRexW(in instruction))
                {
                    // 32-bit pointers: the selectors beside them are not kept.
                    control[12..16].Clear();
                    control[20..24].Clear();
                }
            }
        }

        if ((requested & ExtendedState.Sse) != 0)
        {
            Span<byte> xmm = area.Slice(ExtendedState.XmmOffset, XstateChecks.XmmLength(cpu));
            xmm.Clear();
            if ((loaded & ExtendedState.Sse) != 0)
            {
                head.Slice(ExtendedState.XmmOffset, xmm.Length).CopyTo(xmm);
            }
        }
    }
}
