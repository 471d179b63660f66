using System.Numerics;
using System.Runtime.InteropServices;
using Iced.Intel;

namespace MicroVm.InstructionEmulator.Handlers;

/// <summary>XSAVE, XSAVEOPT, XSAVEC and XSAVES (Intel SDM volume 1, 13.7 and 13.9 to 13.11).</summary>
/// <remarks>
/// The modified optimization of XSAVEOPT and XSAVES is allowed, not required, and not done: only components in their
/// initial state are left out.
/// </remarks>
internal static class XsaveHandlers
{
    private enum Form
    {
        Standard,
        Optimized,
        Compacted,
        Supervisor,
    }

    public static void Register(HandlerTable table)
    {
        table.Add(Mnemonic.Xsave, "xsave", static (AssistCpu c, in Instruction i) => Save(c, in i, Form.Standard, true));
        table.Add(Mnemonic.Xsave64, "xsave64", static (AssistCpu c, in Instruction i) => Save(c, in i, Form.Standard, true));
        table.Add(Mnemonic.Xsaveopt, "xsaveopt", static (AssistCpu c, in Instruction i) => Save(c, in i, Form.Optimized, c.Layout.HasXsaveopt));
        table.Add(Mnemonic.Xsaveopt64, "xsaveopt64", static (AssistCpu c, in Instruction i) => Save(c, in i, Form.Optimized, c.Layout.HasXsaveopt));
        table.Add(Mnemonic.Xsavec, "xsavec", static (AssistCpu c, in Instruction i) => Save(c, in i, Form.Compacted, c.Layout.HasXsavec));
        table.Add(Mnemonic.Xsavec64, "xsavec64", static (AssistCpu c, in Instruction i) => Save(c, in i, Form.Compacted, c.Layout.HasXsavec));
        table.Add(Mnemonic.Xsaves, "xsaves", static (AssistCpu c, in Instruction i) => Save(c, in i, Form.Supervisor, c.Layout.HasXsaves));
        table.Add(Mnemonic.Xsaves64, "xsaves64", static (AssistCpu c, in Instruction i) => Save(c, in i, Form.Supervisor, c.Layout.HasXsaves));
    }

    private static Outcome Save(AssistCpu cpu, in Instruction instruction, Form form, bool supported)
    {
        Outcome outcome = XstateChecks.Enter(cpu, in instruction, supported, form == Form.Supervisor, out ulong address, out ulong requested);
        if (outcome != Outcome.Done)
        {
            return outcome;
        }

        cpu.Xstate.Load();
        ulong inUse = cpu.Xstate.XstateBv & requested;
        bool compacted = form is Form.Compacted or Form.Supervisor;

        // MXCSR is no part of what is tracked as in use, so the forms that save it with SSE look at its value.
        if (compacted && (requested & ExtendedState.Sse) != 0 && cpu.Xstate.Mxcsr != ExtendedState.MxcsrDefault)
        {
            inUse |= ExtendedState.Sse;
        }

        ulong saved = form == Form.Standard ? requested : inUse;
        int length = compacted ? cpu.Layout.CompactedLength(requested, saved) : cpu.Layout.StandardLength(saved);
        outcome = cpu.Operand.Translate(address, length, PageAccess.Write);
        if (outcome != Outcome.Done)
        {
            return outcome;
        }

        SaveLegacy(cpu, in instruction, saved, compacted ? saved & ExtendedState.Sse : requested & (ExtendedState.Sse | ExtendedState.Avx));
        for (ulong rest = saved & ~3ul; rest != 0; rest &= rest - 1)
        {
            int i = BitOperations.TrailingZeroCount(rest);
            ReadOnlySpan<byte> component = cpu.Xstate.Bytes.Slice(cpu.Layout.StandardOffset(i), cpu.Layout.Size(i));
            cpu.Operand.CopyToGuest(compacted ? cpu.Layout.CompactedOffset(requested, i) : cpu.Layout.StandardOffset(i), component);
        }

        Span<ulong> header = stackalloc ulong[2];
        if (compacted)
        {
            header[0] = inUse;
            header[1] = requested | XstateChecks.CompactedFormat;
            cpu.Operand.CopyToGuest(XstateLayout.HeaderOffset, MemoryMarshal.AsBytes(header));
        }
        else
        {
            cpu.Operand.CopyFromGuest(XstateLayout.HeaderOffset, MemoryMarshal.AsBytes(header[..1]));
            header[0] = (header[0] & ~requested) | inUse;
            cpu.Operand.CopyToGuest(XstateLayout.HeaderOffset, MemoryMarshal.AsBytes(header[..1]));
        }

        return Outcome.Done;
    }

    private static void SaveLegacy(AssistCpu cpu, in Instruction instruction, ulong saved, ulong mxcsrWith)
    {
        const int PointersOffset = 8;
        Span<byte> area = cpu.Xstate.Bytes;
        if ((saved & ExtendedState.X87) != 0)
        {
            if (XstateChecks.HasRexW(in instruction))
            {
                cpu.Operand.CopyToGuest(0, area[..ExtendedState.MxcsrOffset]);
            }
            else
            {
                // FIP and FDP in 32 bits with selectors, which KVM does not keep: 0, as on processors without them.
                Span<byte> pointers = stackalloc byte[16];
                pointers.Clear();
                area.Slice(PointersOffset, 4).CopyTo(pointers);
                area.Slice(PointersOffset + 8, 4).CopyTo(pointers[8..]);
                cpu.Operand.CopyToGuest(0, area[..PointersOffset]);
                cpu.Operand.CopyToGuest(PointersOffset, pointers);
            }

            cpu.Operand.CopyToGuest(ExtendedState.StOffset, area[ExtendedState.StOffset..ExtendedState.XmmOffset]);
        }

        if (mxcsrWith != 0)
        {
            Span<uint> mxcsr = [cpu.Xstate.Mxcsr, cpu.Layout.MxcsrMask];
            cpu.Operand.CopyToGuest(ExtendedState.MxcsrOffset, MemoryMarshal.AsBytes(mxcsr));
        }

        if ((saved & ExtendedState.Sse) != 0)
        {
            cpu.Operand.CopyToGuest(ExtendedState.XmmOffset, area.Slice(ExtendedState.XmmOffset, XstateChecks.XmmLength(cpu)));
        }
    }
}
