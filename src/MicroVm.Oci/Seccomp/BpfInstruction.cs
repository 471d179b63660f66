using System.Buffers.Binary;

namespace MicroVm.Oci.Seccomp;

/// <summary>A classic BPF instruction: struct sock_filter (linux/filter.h).</summary>
/// <param name="Code">Operation: class, size, mode, source.</param>
/// <param name="JumpTrue">Instructions skipped when a comparison holds.</param>
/// <param name="JumpFalse">Instructions skipped when it does not.</param>
/// <param name="Operand">Constant, offset or, for JA, instructions skipped.</param>
public readonly record struct BpfInstruction(ushort Code, byte JumpTrue, byte JumpFalse, uint Operand)
{
#pragma warning disable CS1591 // linux/bpf_common.h: BPF_LD|BPF_W|BPF_ABS and so on
    public const ushort LoadAbsolute = 0x20;
    public const ushort And = 0x54;
    public const ushort Jump = 0x05;
    public const ushort JumpEqual = 0x15;
    public const ushort JumpGreater = 0x25;
    public const ushort JumpGreaterOrEqual = 0x35;
    public const ushort Return = 0x06;
#pragma warning restore CS1591

    /// <summary>Size of an instruction in bytes.</summary>
    public const int Size = 8;

    /// <summary>Most instructions that the kernel takes: BPF_MAXINSNS.</summary>
    public const int MaxInstructions = 4096;

    /// <summary>The program as an array of struct sock_filter, little-endian.</summary>
    public static byte[] Assemble(IReadOnlyList<BpfInstruction> program)
    {
        ArgumentNullException.ThrowIfNull(program);
        byte[] bytes = new byte[program.Count * Size];
        for (int i = 0; i < program.Count; i++)
        {
            Span<byte> at = bytes.AsSpan(i * Size);
            BinaryPrimitives.WriteUInt16LittleEndian(at, program[i].Code);
            at[2] = program[i].JumpTrue;
            at[3] = program[i].JumpFalse;
            BinaryPrimitives.WriteUInt32LittleEndian(at[4..], program[i].Operand);
        }

        return bytes;
    }
}
