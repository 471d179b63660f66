using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Jail;

/// <summary>
/// A seccomp filter (seccomp(2), SECCOMP_SET_MODE_FILTER) made of rules: what no rule names ends the process with SIGSYS.
/// Filters of a thread add up: a thread that comes from another can only be given less.
/// </summary>
public static class SystemCallFilter
{
    private const uint AuditArchX8664 = 0xC000003E;
    private const uint X32Bit = 0x40000000;
    private const uint KillProcess = 0x80000000;
    private const uint AllowCall = 0x7fff0000;
    private const uint FailCall = 0x00050000;
    private const uint FilterFlagTsync = 1;
    private const ushort Load = 0x20, And = 0x54, JumpEqual = 0x15, JumpGreaterOrEqual = 0x35, Return = 0x06;

    // struct seccomp_data: nr, arch, instruction pointer, six arguments.
    private const uint NumberOffset = 0, ArchOffset = 4, ArgumentsOffset = 16;

    /// <summary>An instruction of classic BPF (struct sock_filter, linux/filter.h).</summary>
    public readonly record struct Instruction(ushort Code, byte JumpTrue, byte JumpFalse, uint Operand);

    /// <summary>Compiles rules, each system call at most once.</summary>
    public static Instruction[] Compile(IReadOnlyList<SystemCallRule> rules)
    {
        ArgumentNullException.ThrowIfNull(rules);
        List<Instruction> program =
        [
            new(Load, 0, 0, ArchOffset),
            new(JumpEqual, 1, 0, AuditArchX8664),
            new(Return, 0, 0, KillProcess),
            new(Load, 0, 0, NumberOffset),
            new(JumpGreaterOrEqual, 0, 1, X32Bit),
            new(Return, 0, 0, KillProcess),
        ];
        foreach (SystemCallRule rule in rules)
        {
            if (rule.Argument < 0)
            {
                program.Add(new(JumpEqual, 0, 1, (uint)rule.Number));
                program.Add(new(Return, 0, 0, rule.Error == Errno.OK ? AllowCall : FailCall | (uint)rule.Error));
                continue;
            }

            // Load, mask, a comparison for each value, kill, allow: the accumulator is lost, but then nothing follows.
            int count = rule.Values.Count;
            program.Add(new(JumpEqual, 0, checked((byte)(count + 4)), (uint)rule.Number));
            program.Add(new(Load, 0, 0, ArgumentsOffset + (8 * (uint)rule.Argument)));
            program.Add(new(And, 0, 0, rule.Mask));
            for (int i = 0; i < count; i++)
            {
                program.Add(new(JumpEqual, (byte)(count - i), 0, rule.Values[i]));
            }

            program.Add(new(Return, 0, 0, KillProcess));
            program.Add(new(Return, 0, 0, AllowCall));
        }

        program.Add(new(Return, 0, 0, KillProcess));
        return [.. program];
    }

    private static bool s_on;
    private static bool s_saves;
    private static bool s_grows;

    /// <summary>
    /// Puts the filter of <see cref="ThreadKind.Any"/> on every thread that the process has: no other can be made from now on.
    /// <see cref="Narrow"/> has an effect from now on.
    /// </summary>
    /// <param name="saves">The machine may be saved: leaves what that needs.</param>
    /// <param name="grows">vCPUs may come later: leaves what that needs.</param>
    /// <exception cref="LinuxException">The kernel refuses; no_new_privs is not set.</exception>
    public static void TurnOn(bool saves = false, bool grows = false)
    {
        (s_saves, s_grows) = (saves, grows);
        Install(ThreadKind.Any, FilterFlagTsync);
        s_on = true;
    }

    /// <summary>
    /// Leaves the calling thread what its kind needs and no more, and no capability unless it serves files. Once for each thread, but
    /// a spare vCPU's, which becomes a vCPU's; nothing happens in a process whose filter is not on.
    /// </summary>
    /// <exception cref="LinuxException">The kernel refuses.</exception>
    // Safe: capset(2) reads a header and two records of this call, as version 3 of the header says.
    public static unsafe void Narrow(ThreadKind kind)
    {
        if (!s_on)
        {
            return;
        }

        if (kind is not ThreadKind.Files)
        {
            Libc.__user_cap_header_struct header = new() { version = Libc._LINUX_CAPABILITY_VERSION_3 };
            Libc.__user_cap_data_struct* none = stackalloc Libc.__user_cap_data_struct[2];
            Check.Result(Libc.capset(&header, none), $"capset of the {kind} thread");
        }

        Install(kind, 0);
    }

    // Safe: the program is pinned while seccomp(2) copies it, and its length goes with it.
    private static unsafe void Install(ThreadKind kind, uint flags)
    {
        Instruction[] program = Compile(SystemCallSets.For(kind, Libc.getpid(), s_saves, s_grows));
        fixed (Instruction* code = program)
        {
            // struct sock_fprog: a count and, after padding, a pointer.
            nint* fprog = stackalloc nint[2];
            fprog[0] = program.Length;
            fprog[1] = (nint)code;
            Check.Result(Libc.seccomp(Libc.SECCOMP_SET_MODE_FILTER, flags, fprog), $"seccomp filter of the {kind} thread");
        }
    }
}
