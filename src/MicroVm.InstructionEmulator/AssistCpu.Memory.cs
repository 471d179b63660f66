using System.Runtime.CompilerServices;
using Iced.Intel;
using MicroVm.Kvm.Native;
using MicroVm.Memory;

namespace MicroVm.InstructionEmulator;

/// <content>Memory operands.</content>
internal sealed unsafe partial class AssistCpu
{
    /// <summary>The longest operand in bytes: an XSAVE area with every component that exists.</summary>
    public const int MaxOperandLength = (MaxChunks - 1) * GuestMemory.PageSize;

    private const int MaxChunks = 9;
    private ChunkArray _chunks;
    private int _chunkCount;

    /// <summary>The linear address of the last memory operand.</summary>
    public ulong OperandAddress { get; private set; }

    /// <summary>
    /// Finds and checks a memory operand as a whole: after <see cref="Outcome.Done"/>, <see cref="CopyFromGuest"/> and
    /// <see cref="CopyToGuest"/> reach its bytes.
    /// </summary>
    public Outcome TranslateOperand(in Instruction instruction, int operand, int length, PageAccess access)
    {
        Outcome outcome = ResolveAddress(in instruction, operand, length, out ulong linear);
        return outcome == Outcome.Done ? Translate(linear, length, access) : outcome;
    }

    /// <summary>The linear address of a memory operand, checked to be canonical or within its segment's limit.</summary>
    public Outcome ResolveAddress(in Instruction instruction, int operand, int length, out ulong linear)
    {
        linear = 0;
        if (!instruction.TryGetVirtualAddress(operand, 0, this, out ulong offset))
        {
            return Unsupported("its memory operand is of a form that is not known here");
        }

        Register name = instruction.MemorySegment;
        ref kvm_segment segment = ref Segment(name);
        if (Bitness == 64)
        {
            linear = offset + (name is Register.FS or Register.GS ? segment.@base : 0);
            if (!IsCanonical(linear) || !IsCanonical(linear + (ulong)length - 1))
            {
                return Fault(name == Register.SS ? KvmAbi.SS_VECTOR : KvmAbi.GP_VECTOR, 0);
            }
        }
        else
        {
            offset = (uint)offset;

            // Expand-up segments; an expand-down one (type 4..7) is left to its base, as nothing uses it for data here.
            bool expandDown = (segment.type & 0xC) == 4;
            if (segment.unusable != 0 || (!expandDown && offset + (ulong)length - 1 > segment.limit))
            {
                return Fault(name == Register.SS ? KvmAbi.SS_VECTOR : KvmAbi.GP_VECTOR, 0);
            }

            linear = (uint)(segment.@base + offset);
        }

        OperandAddress = linear;
        return Outcome.Done;
    }

    /// <summary>
    /// Translates a range page by page; every page is checked before any byte is touched.
    /// </summary>
    public Outcome Translate(ulong linear, int length, PageAccess access)
    {
        _chunkCount = 0;
        if (length > MaxOperandLength)
        {
            return Unsupported("its memory operand is too long");
        }

        if (Cpl == 3)
        {
            access |= PageAccess.User;
        }

        while (length > 0)
        {
            int piece = Math.Min(length, GuestMemory.PageSize - (int)(linear % GuestMemory.PageSize));
            switch (GuestPageWalker.Walk(_memory, in Sregs, Regs.rflags, linear, access, out ulong gpa, out uint errorCode))
            {
                case WalkResult.PageFault:
                    FaultAddress = linear;
                    return Fault(KvmAbi.PF_VECTOR, errorCode);
                case WalkResult.Unsupported:
                    return Unsupported("the guest uses a paging mode or a page table that is not walked here");
            }

            byte* p = _memory.TryGetPointer(gpa, (ulong)piece);
            if (p is null)
            {
                return Unsupported("its memory operand is not in RAM");
            }

            _chunks[_chunkCount++] = new Chunk(p, piece);
            linear += (ulong)piece;
            length -= piece;
        }

        return Outcome.Done;
    }

    /// <summary>True when the bits above the paging mode's width all equal its highest one.</summary>
    public bool IsCanonical(ulong address)
    {
        int unused = (Sregs.cr4 & Cr4La57) != 0 ? 7 : 16;
        return (ulong)((long)(address << unused) >> unused) == address;
    }

    /// <summary>Copies bytes of the operand translated last.</summary>
    public void CopyFromGuest(int offset, Span<byte> destination) => Copy(offset, destination, toGuest: false);

    /// <summary>Copies into the operand translated last.</summary>
    public void CopyToGuest(int offset, ReadOnlySpan<byte> source)
    {
        fixed (byte* p = source)
        {
            Copy(offset, new Span<byte>(p, source.Length), toGuest: true);
        }
    }

    /// <summary>The operand's first byte in this process, when it is in one piece of <paramref name="length"/> bytes.</summary>
    public byte* TryGetPointer(int length) => _chunkCount == 1 && _chunks[0].Length >= length ? _chunks[0].Pointer : null;

    /// <summary>Reads instruction bytes at RIP, at most up to the end of what is mapped.</summary>
    /// <returns>How many; when none, <paramref name="outcome"/> says why.</returns>
    public int Fetch(Span<byte> destination, out Outcome outcome)
    {
        ulong linear = Bitness == 64 ? Regs.rip : (uint)(Sregs.cs.@base + Regs.rip);
        int done = 0;
        outcome = Outcome.Done;
        while (done < destination.Length)
        {
            int piece = Math.Min(destination.Length - done, GuestMemory.PageSize - (int)(linear % GuestMemory.PageSize));
            Outcome translated = Translate(linear, piece, PageAccess.Fetch);
            if (translated != Outcome.Done)
            {
                outcome = translated;
                break;
            }

            CopyFromGuest(0, destination.Slice(done, piece));
            done += piece;
            linear += (ulong)piece;
        }

        return done;
    }

    private ref kvm_segment Segment(Register name)
    {
        ref kvm_sregs sregs = ref Sregs;
        switch (name)
        {
            case Register.ES: return ref sregs.es;
            case Register.CS: return ref sregs.cs;
            case Register.SS: return ref sregs.ss;
            case Register.FS: return ref sregs.fs;
            case Register.GS: return ref sregs.gs;
            default: return ref sregs.ds;
        }
    }

    private void Copy(int offset, Span<byte> local, bool toGuest)
    {
        for (int i = 0; i < _chunkCount && !local.IsEmpty; i++)
        {
            Chunk chunk = _chunks[i];
            if (offset >= chunk.Length)
            {
                offset -= chunk.Length;
                continue;
            }

            int n = Math.Min(local.Length, chunk.Length - offset);
            Span<byte> guest = new(chunk.Pointer + offset, n);
            if (toGuest)
            {
                local[..n].CopyTo(guest);
            }
            else
            {
                guest.CopyTo(local);
            }

            local = local[n..];
            offset = 0;
        }

        if (!local.IsEmpty)
        {
            throw new InvalidOperationException("an instruction handler went past the operand that it had translated");
        }
    }

    /// <summary>A piece of an operand within one page. The pointer came from <see cref="GuestMemory"/>'s range check.</summary>
    private readonly struct Chunk(byte* pointer, int length)
    {
        public byte* Pointer { get; } = pointer;

        public int Length { get; } = length;
    }

    [InlineArray(MaxChunks)]
    private struct ChunkArray
    {
        private Chunk _element;
    }
}
