using Iced.Intel;
using MicroVm.Kvm;
using MicroVm.Kvm.Native;

namespace MicroVm.InstructionEmulator;

/// <summary>Decodes the instruction at RIP: from the bytes that came with the exit, or else from guest memory.</summary>
internal sealed class InstructionFetcher : CodeReader
{
    /// <summary>No instruction is longer, in bytes.</summary>
    public const int MaxLength = 15;

    private readonly byte[] _bytes = new byte[MaxLength];
    private readonly Decoder[] _decoders = new Decoder[3];
    private int _count;
    private int _next;

    /// <summary>The bytes fetched last: at least those of the instruction, when it was decoded.</summary>
    public ReadOnlySpan<byte> Bytes => _bytes.AsSpan(0, _count);

    /// <inheritdoc/>
    public override int ReadByte() => _next < _count ? _bytes[_next++] : -1;

    /// <summary>Takes the instruction bytes of an emulation failure; none when KVM gave none.</summary>
    // Safe: insn_size is checked to be at most MaxLength, the length of both buffers.
    public unsafe void SetBytes(ref kvm_run run)
    {
        _count = 0;
        ref kvm_run.emulation_failure_exit failure = ref run.emulation_failure;
        const uint NdataWithBytes = 3;
        if (failure.ndata >= NdataWithBytes
            && (failure.flags & KvmAbi.KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0
            && failure.insn_size is > 0 and <= MaxLength)
        {
            _count = failure.insn_size;
            for (int i = 0; i < _count; i++)
            {
                _bytes[i] = failure.insn_bytes[i];
            }
        }
    }

    /// <summary>Takes no bytes from the exit: the next <see cref="Decode"/> reads memory.</summary>
    public void SetNoBytes() => _count = 0;

    /// <summary>
    /// Decodes at RIP. <see cref="Outcome.Done"/> also for bytes that are no instruction: <see cref="Instruction.IsInvalid"/>.
    /// </summary>
    public Outcome Decode(AssistCpu cpu, out Instruction instruction)
    {
        Decoder decoder = _decoders[cpu.Bitness >> 5] ??= Decoder.Create(cpu.Bitness, this);
        instruction = default;
        if (_count > 0 && TryDecode(decoder, cpu.Regs.rip, out instruction))
        {
            return Outcome.Done;
        }

        _count = cpu.Operand.Fetch(_bytes, out Outcome outcome);
        if (TryDecode(decoder, cpu.Regs.rip, out instruction))
        {
            return Outcome.Done;
        }

        // The page that would hold the rest of the instruction is not there: that is the fault.
        return outcome;
    }

    private bool TryDecode(Decoder decoder, ulong rip, out Instruction instruction)
    {
        _next = 0;
        decoder.IP = rip;
        decoder.Decode(out instruction);
        return decoder.LastError != DecoderError.NoMoreBytes;
    }
}
