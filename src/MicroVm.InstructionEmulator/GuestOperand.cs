using System.Runtime.CompilerServices;
using Iced.Intel;
using MicroVm.Kvm.Native;
using MicroVm.Memory;

namespace MicroVm.InstructionEmulator;

/// <summary>
/// A range of the guest's linear addresses that an instruction reads or writes: translated and checked as a whole before any byte is
/// touched. Keeps the last one. Used by the vCPU's thread.
/// </summary>
internal sealed class GuestOperand(AssistCpu cpu, GuestMemory memory)
{
    /// <summary>The longest operand in bytes: an XSAVE area with every component that exists.</summary>
    public const int MaxLength = (MaxPieces - 1) * GuestMemory.PageSize;

    private const int MaxPieces = 9;
    private readonly AssistCpu _cpu = cpu;
    private readonly GuestMemory _memory = memory;
    private PieceArray _pieces;
    private int _pieceCount;

    /// <summary>The linear address of the last memory operand that was resolved.</summary>
    public ulong Address { get; private set; }

    /// <summary>A new instruction begins.</summary>
    public void Forget() => _pieceCount = 0;

    /// <summary>
    /// Finds and checks a memory operand as a whole: after <see cref="Outcome.Done"/>, <see cref="CopyFromGuest"/> and
    /// <see cref="CopyToGuest"/> reach its bytes.
    /// </summary>
    public Outcome Translate(in Instruction instruction, int operand, int length, PageAccess access)
    {
        Outcome outcome = Resolve(in instruction, operand, length, out ulong linear);
        return outcome == Outcome.Done ? Translate(linear, length, access) : outcome;
    }

    /// <summary>The linear address of a memory operand, checked to be canonical or within its segment's limit.</summary>
    public Outcome Resolve(in Instruction instruction, int operand, int length, out ulong linear)
    {
        linear = 0;
        if (!instruction.TryGetVirtualAddress(operand, 0, _cpu, out ulong offset))
        {
            return _cpu.Unsupported("its memory operand is of a form that is not known here");
        }

        Register name = instruction.MemorySegment;
        ref kvm_segment segment = ref _cpu.Segment(name);
        if (_cpu.Bitness == 64)
        {
            linear = offset + (name is Register.FS or Register.GS ? segment.@base : 0);
            if (!_cpu.IsCanonical(linear) || !_cpu.IsCanonical(linear + (ulong)length - 1))
            {
                return _cpu.Fault(name == Register.SS ? KvmAbi.SS_VECTOR : KvmAbi.GP_VECTOR, 0);
            }
        }
        else
        {
            offset = (uint)offset;

            // Expand-up segments; an expand-down one (type 4..7) is left to its base, as nothing uses it for data here.
            bool expandDown = (segment.type & 0xC) == 4;
            if (segment.unusable != 0 || (!expandDown && offset + (ulong)length - 1 > segment.limit))
            {
                return _cpu.Fault(name == Register.SS ? KvmAbi.SS_VECTOR : KvmAbi.GP_VECTOR, 0);
            }

            linear = (uint)(segment.@base + offset);
        }

        Address = linear;
        return Outcome.Done;
    }

    /// <summary>
    /// Translates a range page by page; every page is checked before any byte is touched.
    /// </summary>
    // Safe: the pointer is kept with the length that GuestMemory checked for it; At bounds every use by that.
    public unsafe Outcome Translate(ulong linear, int length, PageAccess access)
    {
        _pieceCount = 0;
        if (length > MaxLength)
        {
            return _cpu.Unsupported("its memory operand is too long");
        }

        if (_cpu.Cpl == 3)
        {
            access |= PageAccess.User;
        }

        while (length > 0)
        {
            int piece = Math.Min(length, GuestMemory.PageSize - (int)(linear % GuestMemory.PageSize));
            switch (GuestPageWalker.Walk(_memory, in _cpu.Sregs, _cpu.Regs.rflags, linear, access, out ulong gpa, out uint errorCode))
            {
                case WalkResult.PageFault:
                    return _cpu.PageFault(linear, errorCode);
                case WalkResult.Unsupported:
                    return _cpu.Unsupported("the guest uses a paging mode or a page table that is not walked here");
            }

            byte* p = _memory.TryGetPointer(gpa, (ulong)piece);
            if (p is null)
            {
                return _cpu.Unsupported("its memory operand is not in RAM");
            }

            _pieces[_pieceCount++] = new Piece(p, piece);
            linear += (ulong)piece;
            length -= piece;
        }

        return Outcome.Done;
    }

    /// <summary>Reads instruction bytes at RIP, at most up to the end of what is mapped.</summary>
    /// <returns>How many; when none, <paramref name="outcome"/> says why.</returns>
    public int Fetch(Span<byte> destination, out Outcome outcome)
    {
        ulong linear = _cpu.Bitness == 64 ? _cpu.Regs.rip : (uint)(_cpu.Sregs.cs.@base + _cpu.Regs.rip);
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

    /// <summary>Copies bytes of the operand translated last.</summary>
    public void CopyFromGuest(int offset, Span<byte> destination)
    {
        while (!destination.IsEmpty)
        {
            Span<byte> piece = At(offset, destination.Length);
            piece.CopyTo(destination);
            destination = destination[piece.Length..];
            offset += piece.Length;
        }
    }

    /// <summary>Copies into the operand translated last.</summary>
    public void CopyToGuest(int offset, ReadOnlySpan<byte> source)
    {
        while (!source.IsEmpty)
        {
            Span<byte> piece = At(offset, source.Length);
            source[..piece.Length].CopyTo(piece);
            source = source[piece.Length..];
            offset += piece.Length;
        }
    }

    /// <summary>The operand's first byte in this process, when it is in one piece of <paramref name="length"/> bytes.</summary>
    // Safe: the piece was checked to be RAM for its whole length, which is at least length.
    public unsafe byte* TryGetPointer(int length) => _pieceCount == 1 && _pieces[0].Length >= length ? _pieces[0].Pointer : null;

    // Safe: Translate had each piece's pointer and length from GuestMemory's range check, and RAM stays mapped while vCPUs run.
    private unsafe Span<byte> At(int offset, int wanted)
    {
        for (int i = 0; i < _pieceCount; i++)
        {
            Piece piece = _pieces[i];
            if (offset < piece.Length)
            {
                return new Span<byte>(piece.Pointer + offset, Math.Min(wanted, piece.Length - offset));
            }

            offset -= piece.Length;
        }

        throw new InvalidOperationException("an instruction handler went past the operand that it had translated");
    }

    /// <summary>A part of an operand within one page. The pointer came from <see cref="GuestMemory"/>'s range check.</summary>
    private readonly struct Piece
    {
        // Safe: the pointer is kept, not followed.
        public unsafe Piece(byte* pointer, int length)
        {
            Pointer = pointer;
            Length = length;
        }

        // Safe: handed out with the length that belongs to it.
        public unsafe byte* Pointer { get; }

        public int Length { get; }
    }

    [InlineArray(MaxPieces)]
    private struct PieceArray
    {
        private Piece _element;
    }
}
