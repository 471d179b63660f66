namespace MicroVm.Oci.Seccomp;

/// <summary>
/// Compiles a <see cref="SeccompProfile"/> to classic BPF: a check of the architecture, then a binary search over the
/// system call's number, then its argument comparisons.
/// </summary>
public static class SeccompCompiler
{
    /// <summary>Compiles to an array of struct sock_filter.</summary>
    /// <exception cref="SpecException">The program is longer than the kernel takes.</exception>
    public static byte[] Compile(SeccompProfile profile) => BpfInstruction.Assemble(CompileProgram(profile));

    /// <summary>Compiles to instructions.</summary>
    /// <exception cref="SpecException">The program is longer than the kernel takes.</exception>
    public static IReadOnlyList<BpfInstruction> CompileProgram(SeccompProfile profile)
    {
        ArgumentNullException.ThrowIfNull(profile);
        List<BpfInstruction> program =
        [
            Load(SeccompAbi.OffsetArch),
            new(BpfInstruction.JumpEqual, 3, 0, SeccompAbi.AUDIT_ARCH_X86_64),
            new(BpfInstruction.JumpEqual, 0, 1, SeccompAbi.AUDIT_ARCH_I386),
            Return(profile.I386Action),
            Return(SeccompAbi.SECCOMP_RET_KILL_THREAD),
            Load(SeccompAbi.OffsetNr),
        ];
        List<Range> ranges = Ranges(profile);
        program.AddRange(Search(ranges, 0, ranges.Count, profile.DefaultAction));
        if (program.Count > BpfInstruction.MaxInstructions)
        {
            throw new SpecException(
                $"linux.seccomp compiles to {program.Count} BPF instructions; the kernel takes {BpfInstruction.MaxInstructions}: use fewer argument comparisons");
        }

        return program;
    }

    /// <summary>All numbers from 0 to 2^32-1 as consecutive ranges that are treated alike.</summary>
    private static List<Range> Ranges(SeccompProfile profile)
    {
        uint enosys = SeccompAbi.SECCOMP_RET_ERRNO | (uint)Linux.Errno.ENOSYS;
        List<Range> ranges = [];
        uint next = 0;
        foreach ((int number, SyscallRules rules) in profile.Syscalls)
        {
            Append(ranges, new Range(next, profile.DefaultAction, null), (uint)number);
            next = (uint)number + 1;
            Append(
                ranges,
                rules.Unconditional is { } action ? new Range((uint)number, action, null) : new Range((uint)number, 0, rules),
                next);
        }

        uint known = profile.LastKnown is { } last ? Math.Max(next, (uint)last + 1) : SeccompAbi.X32_SYSCALL_BIT;
        Append(ranges, new Range(next, profile.DefaultAction, null), known);
        Append(ranges, new Range(known, enosys, null), SeccompAbi.X32_SYSCALL_BIT);
        Append(ranges, new Range(SeccompAbi.X32_SYSCALL_BIT, profile.X32Action, null), uint.MaxValue);

        // -1: a tracer skipped the call.
        ranges.Add(new Range(uint.MaxValue, profile.DefaultAction, null));
        return ranges;
    }

    private static void Append(List<Range> ranges, Range range, uint end)
    {
        bool empty = range.Start >= end;
        bool same = ranges.Count > 0 && range.Rules is null && ranges[^1].Rules is null && ranges[^1].Action == range.Action;
        if (!empty && !same)
        {
            ranges.Add(range);
        }
    }

    private static List<BpfInstruction> Search(List<Range> ranges, int from, int to, uint defaultAction)
    {
        if (to - from == 1)
        {
            return ranges[from].Rules is { } rules ? Rules(rules, defaultAction) : [Return(ranges[from].Action)];
        }

        int middle = from + ((to - from) / 2);
        List<BpfInstruction> low = Search(ranges, from, middle, defaultAction);
        List<BpfInstruction> high = Search(ranges, middle, to, defaultAction);
        uint boundary = ranges[middle].Start;
        List<BpfInstruction> code = new(low.Count + high.Count + 2);
        if (low.Count <= byte.MaxValue)
        {
            code.Add(new BpfInstruction(BpfInstruction.JumpGreaterOrEqual, (byte)low.Count, 0, boundary));
        }
        else
        {
            // A conditional jump reaches 255 instructions, an unconditional one all.
            code.Add(new BpfInstruction(BpfInstruction.JumpGreaterOrEqual, 0, 1, boundary));
            code.Add(new BpfInstruction(BpfInstruction.Jump, 0, 0, (uint)low.Count));
        }

        code.AddRange(low);
        code.AddRange(high);
        return code;
    }

    private static List<BpfInstruction> Rules(SyscallRules rules, uint defaultAction)
    {
        List<BpfInstruction> code = [];
        foreach (ConditionalRule rule in rules.Conditional)
        {
            // Built backwards, so that the distance to the next rule is known: at most six conditions of at most seven.
            List<BpfInstruction> body = [Return(rule.Action)];
            for (int i = rule.Conditions.Count - 1; i >= 0; i--)
            {
                body = [.. Condition(rule.Conditions[i], body.Count), .. body];
            }

            code.AddRange(body);
        }

        code.Add(Return(defaultAction));
        return code;
    }

    /// <summary>
    /// Falls out at its end when the condition holds, else skips <paramref name="skip"/> instructions more. The high half
    /// is compared first; the low half decides only when the high halves are equal.
    /// </summary>
    private static List<BpfInstruction> Condition(ArgCondition c, int skip)
    {
        uint offset = SeccompAbi.OffsetArgs + (uint)(c.Index * 8);
        uint high = (uint)(c.Value >> 32), low = (uint)c.Value;
        byte fail = (byte)skip;
        switch (c.Operator)
        {
            case ArgOperator.Equal:
                return
                [
                    Load(offset + 4), Jump(BpfInstruction.JumpEqual, high, 0, fail + 2),
                    Load(offset), Jump(BpfInstruction.JumpEqual, low, 0, fail),
                ];
            case ArgOperator.NotEqual:
                return
                [
                    Load(offset + 4), Jump(BpfInstruction.JumpEqual, high, 0, 2),
                    Load(offset), Jump(BpfInstruction.JumpEqual, low, fail, 0),
                ];
            case ArgOperator.Greater or ArgOperator.GreaterOrEqual:
                return
                [
                    Load(offset + 4), Jump(BpfInstruction.JumpGreater, high, 3, 0), Jump(BpfInstruction.JumpEqual, high, 0, fail + 2),
                    Load(offset), Jump(c.Operator == ArgOperator.Greater ? BpfInstruction.JumpGreater : BpfInstruction.JumpGreaterOrEqual, low, 0, fail),
                ];
            case ArgOperator.Less or ArgOperator.LessOrEqual:
                return
                [
                    Load(offset + 4), Jump(BpfInstruction.JumpGreater, high, fail + 3, 0), Jump(BpfInstruction.JumpEqual, high, 0, 2),
                    Load(offset), Jump(c.Operator == ArgOperator.Less ? BpfInstruction.JumpGreaterOrEqual : BpfInstruction.JumpGreater, low, fail, 0),
                ];
            default:
                ulong datum = c.ValueTwo & c.Value;
                return
                [
                    Load(offset + 4), new(BpfInstruction.And, 0, 0, high), Jump(BpfInstruction.JumpEqual, (uint)(datum >> 32), 0, fail + 3),
                    Load(offset), new(BpfInstruction.And, 0, 0, low), Jump(BpfInstruction.JumpEqual, (uint)datum, 0, fail),
                ];
        }
    }

    private static BpfInstruction Load(uint offset) => new(BpfInstruction.LoadAbsolute, 0, 0, offset);

    private static BpfInstruction Return(uint action) => new(BpfInstruction.Return, 0, 0, action);

    private static BpfInstruction Jump(ushort code, uint operand, int whenTrue, int whenFalse) =>
        new(code, checked((byte)whenTrue), checked((byte)whenFalse), operand);

    private readonly record struct Range(uint Start, uint Action, SyscallRules? Rules);
}
