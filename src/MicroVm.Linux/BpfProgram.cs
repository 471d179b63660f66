using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>eBPF programs as arrays of struct bpf_insn (linux/bpf.h); the kernel's verifier checks each before it runs.</summary>
public static unsafe class BpfProgram
{
    /// <summary>One struct bpf_insn: operation, registers, offset of a jump or of memory, immediate operand.</summary>
    public static ulong Instruction(byte code, int destination, int source, short offset, uint immediate) =>
        code | ((ulong)destination << 8) | ((ulong)source << 12) | ((ulong)(ushort)offset << 16) | ((ulong)immediate << 32);

    /// <summary>Loads a program.</summary>
    /// <param name="type">BPF_PROG_TYPE_*.</param>
    /// <param name="attachType">Where it will be attached, for the types that must know; else 0.</param>
    /// <param name="code">Its instructions.</param>
    /// <returns>Its descriptor.</returns>
    /// <exception cref="LinuxException">The kernel does not know the type, the verifier refuses the program, or the caller may load none.</exception>
    public static SafeFd Load(int type, int attachType, ReadOnlySpan<ulong> code)
    {
        // union bpf_attr, as far as the command uses it.
        const int attrSize = 72;
        byte* attr = stackalloc byte[attrSize];
        new Span<byte>(attr, attrSize).Clear();
        fixed (ulong* instructions = code)
        {
            fixed (byte* license = "Apache-2.0\0"u8)
            {
                ((uint*)attr)[0] = (uint)type;
                ((uint*)attr)[1] = (uint)code.Length;
                ((ulong*)attr)[1] = (ulong)instructions;
                ((ulong*)attr)[2] = (ulong)license;
                ((uint*)attr)[17] = (uint)attachType; // expected_attach_type
                return SafeFd.From(Libc.bpf(Libc.BPF_PROG_LOAD, attr, attrSize), "bpf(BPF_PROG_LOAD)");
            }
        }
    }
}
