using System.Buffers.Binary;

namespace MicroVm.Oci.Devices;

/// <summary>An eBPF instruction: struct bpf_insn (linux/bpf.h).</summary>
public readonly record struct EbpfInstruction(byte Code, byte Destination, byte Source, short Offset, int Immediate)
{
    /// <summary>Size of an instruction in bytes.</summary>
    public const int Size = 8;
}

/// <summary>
/// Compiles device rules to a BPF_PROG_TYPE_CGROUP_DEVICE program, which returns 1 to allow. Rules are tried from the
/// last to the first: a deny rule that covers one of the accesses still open ends it, an allow rule closes the accesses
/// that it covers, and none left open allows.
/// </summary>
public static class DeviceFilterCompiler
{
    // struct bpf_cgroup_dev_ctx: u32 access_type = access << 16 | type, u32 major, u32 minor; R1 points to it.
    private const byte Result = 0, Context = 1, Type = 2, Open = 3, Major = 4, Minor = 5, Scratch = 6;
#pragma warning disable CS1591 // BPF_LDX|BPF_MEM|BPF_W and so on
    public const byte LoadWord = 0x61;
    public const byte MoveImmediate = 0xb7;
    public const byte MoveRegister = 0xbf;
    public const byte AndImmediate = 0x57;
    public const byte ShiftRightImmediate = 0x77;
    public const byte JumpEqual = 0x15;
    public const byte JumpNotEqual = 0x55;
    public const byte Exit = 0x95;
#pragma warning restore CS1591

    /// <summary>Compiles to an array of struct bpf_insn.</summary>
    public static byte[] Compile(IReadOnlyList<DeviceAccessRule> rules)
    {
        List<EbpfInstruction> program = CompileProgram(rules);
        byte[] bytes = new byte[program.Count * EbpfInstruction.Size];
        for (int i = 0; i < program.Count; i++)
        {
            Span<byte> at = bytes.AsSpan(i * EbpfInstruction.Size);
            at[0] = program[i].Code;
            at[1] = (byte)(program[i].Destination | (program[i].Source << 4));
            BinaryPrimitives.WriteInt16LittleEndian(at[2..], program[i].Offset);
            BinaryPrimitives.WriteInt32LittleEndian(at[4..], program[i].Immediate);
        }

        return bytes;
    }

    /// <summary>Compiles to instructions.</summary>
    public static List<EbpfInstruction> CompileProgram(IReadOnlyList<DeviceAccessRule> rules)
    {
        ArgumentNullException.ThrowIfNull(rules);
        List<EbpfInstruction> program =
        [
            new(LoadWord, Type, Context, 0, 0),
            new(MoveRegister, Open, Type, 0, 0),
            new(AndImmediate, Type, 0, 0, 0xffff),
            new(ShiftRightImmediate, Open, 0, 0, 16),
            new(LoadWord, Major, Context, 4, 0),
            new(LoadWord, Minor, Context, 8, 0),
        ];
        for (int i = rules.Count - 1; i >= 0; i--)
        {
            AddRule(program, rules[i]);
            if (rules[i] is { Type: DeviceType.Any, Major: < 0, Minor: < 0, Access: DeviceAccess.All })
            {
                // Nothing passes this rule.
                break;
            }
        }

        program.Add(new EbpfInstruction(MoveImmediate, Result, 0, 0, 0));
        program.Add(new EbpfInstruction(Exit, 0, 0, 0, 0));
        return program;
    }

    private static void AddRule(List<EbpfInstruction> program, DeviceAccessRule rule)
    {
        List<EbpfInstruction> verdict = rule.Allow
            ?
            [
                new(AndImmediate, Open, 0, 0, ~(int)rule.Access),
                new(JumpNotEqual, Open, 0, 2, 0),
            ]
            :
            [
                new(MoveRegister, Scratch, Open, 0, 0),
                new(AndImmediate, Scratch, 0, 0, (int)rule.Access),
                new(JumpEqual, Scratch, 0, 2, 0),
            ];
        verdict.Add(new EbpfInstruction(MoveImmediate, Result, 0, 0, rule.Allow ? 1 : 0));
        verdict.Add(new EbpfInstruction(Exit, 0, 0, 0, 0));

        List<(byte Register, int Value)> tests = [];
        if (rule.Type != DeviceType.Any)
        {
            tests.Add((Type, (int)rule.Type));
        }

        if (rule.Major >= 0)
        {
            tests.Add((Major, rule.Major));
        }

        if (rule.Minor >= 0)
        {
            tests.Add((Minor, rule.Minor));
        }

        for (int i = 0; i < tests.Count; i++)
        {
            program.Add(new EbpfInstruction(
                JumpNotEqual, tests[i].Register, 0, (short)(tests.Count - 1 - i + verdict.Count), tests[i].Value));
        }

        program.AddRange(verdict);
    }
}
