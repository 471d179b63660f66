using MicroVm.Linux;
using MicroVm.Oci.Config;

namespace MicroVm.Oci.Seccomp;

/// <summary>Turns <c>linux.seccomp</c> into a <see cref="SeccompProfile"/>, with libseccomp's and runc's meaning of it.</summary>
public static class SeccompResolver
{
    private const uint MaxErrno = 4095;
    private const int MaxArgs = 6;

    /// <summary>Actions that are understood, in the order in which <c>features</c> lists them.</summary>
    public static readonly IReadOnlyList<string> Actions =
    [
        "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
    ];

    /// <summary>Comparison operators that are understood.</summary>
    public static readonly IReadOnlyList<string> Operators =
    [
        "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE",
    ];

    /// <summary>Architectures whose system calls can reach a filter here.</summary>
    public static readonly IReadOnlyList<string> NativeArchitectures = ["SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"];

    /// <summary>Flags that are understood.</summary>
    public static readonly IReadOnlyList<string> KnownFlags =
        ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"];

    private static readonly string[] ForeignArchitectures =
    [
        "SCMP_ARCH_ARM", "SCMP_ARCH_AARCH64", "SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64", "SCMP_ARCH_MIPS64N32",
        "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL64N32", "SCMP_ARCH_PPC", "SCMP_ARCH_PPC64",
        "SCMP_ARCH_PPC64LE", "SCMP_ARCH_S390", "SCMP_ARCH_S390X", "SCMP_ARCH_PARISC", "SCMP_ARCH_PARISC64",
        "SCMP_ARCH_RISCV64", "SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_M68K", "SCMP_ARCH_SH", "SCMP_ARCH_SHEB",
    ];

    /// <summary>Resolves <paramref name="config"/>; null when it asks for no filter.</summary>
    /// <exception cref="SpecException">A name is unknown, or something is asked for that is not supported.</exception>
    public static SeccompProfile? Resolve(Config.Seccomp? config)
    {
        if (config is null || (string.IsNullOrEmpty(config.DefaultAction) && config.Syscalls is null or { Count: 0 }))
        {
            return null;
        }

        if (!string.IsNullOrEmpty(config.ListenerPath) || !string.IsNullOrEmpty(config.ListenerMetadata))
        {
            throw SpecException.Unsupported("linux.seccomp.listenerPath", "there is no seccomp notification from inside a VM");
        }

        uint defaultAction = Action("linux.seccomp.defaultAction", config.DefaultAction, config.DefaultErrnoRet);
        SortedDictionary<int, SyscallRules> syscalls = [];
        int last = -1;
        for (int i = 0; i < (config.Syscalls?.Count ?? 0); i++)
        {
            last = Math.Max(last, AddRule(syscalls, config.Syscalls![i], $"linux.seccomp.syscalls[{i}]", defaultAction));
        }

        (bool x86, bool x32) = Architectures(config.Architectures);
        uint enosys = SeccompAbi.SECCOMP_RET_ERRNO | (uint)Errno.ENOSYS;
        return new SeccompProfile
        {
            DefaultAction = defaultAction,

            // The guest kernel has neither ABI. Listed, they are answered as it would; else it is a foreign architecture.
            I386Action = x86 ? enosys : SeccompAbi.SECCOMP_RET_KILL_THREAD,
            X32Action = x32 ? enosys : SeccompAbi.SECCOMP_RET_KILL_THREAD,
            LastKnown = HasEnosysStub(defaultAction, last) ? last : null,
            Flags = Flags(config.Flags),
            Syscalls = syscalls,
        };
    }

    /// <summary>runc's rule: new system calls say ENOSYS unless the default action lets them through or says so itself.</summary>
    private static bool HasEnosysStub(uint defaultAction, int last) =>
        last >= 0
        && defaultAction is not (SeccompAbi.SECCOMP_RET_ALLOW or SeccompAbi.SECCOMP_RET_LOG)
        && (defaultAction & 0xffff0000) != SeccompAbi.SECCOMP_RET_TRACE
        && defaultAction != (SeccompAbi.SECCOMP_RET_ERRNO | (uint)Errno.ENOSYS);

    /// <returns>The highest number that the rule names, -1 when x86-64 has none of its calls.</returns>
    private static int AddRule(SortedDictionary<int, SyscallRules> syscalls, SeccompSyscall? rule, string where, uint defaultAction)
    {
        if (rule?.Names is null or { Count: 0 })
        {
            throw new SpecException($"{where}.names must not be empty");
        }

        uint action = Action($"{where}.action", rule.Action, rule.ErrnoRet);
        List<IReadOnlyList<ArgCondition>> alternatives = Conditions(rule.Args, where);
        int last = -1;
        foreach (string name in rule.Names)
        {
            // As runc: calls that this architecture lacks are nothing to filter.
            if (name is null || !SyscallTable.TryGetNumber(name, out int number))
            {
                continue;
            }

            last = Math.Max(last, number);
            if (action == defaultAction)
            {
                continue;
            }

            if (!syscalls.TryGetValue(number, out SyscallRules? rules))
            {
                syscalls.Add(number, rules = new SyscallRules());
            }

            foreach (IReadOnlyList<ArgCondition> conditions in alternatives)
            {
                rules.Add(conditions, action);
            }
        }

        return last;
    }

    /// <summary>Conditions all hold together, unless two are on one argument: then each is a rule of its own (runc's reading).</summary>
    private static List<IReadOnlyList<ArgCondition>> Conditions(List<SeccompArg>? args, string where)
    {
        ArgCondition[] conditions = new ArgCondition[args?.Count ?? 0];
        for (int i = 0; i < conditions.Length; i++)
        {
            SeccompArg arg = args![i] ?? throw new SpecException($"{where}.args[{i}] must not be null");
            if (arg.Index is not < MaxArgs)
            {
                throw new SpecException($"{where}.args[{i}].index must be 0 to {MaxArgs - 1}");
            }

            conditions[i] = new ArgCondition(
                (int)arg.Index.Value, Operator($"{where}.args[{i}].op", arg.Op), arg.Value ?? 0, arg.ValueTwo ?? 0);
        }

        return conditions.DistinctBy(c => c.Index).Count() == conditions.Length
            ? [conditions]
            : [.. conditions.Select(c => (IReadOnlyList<ArgCondition>)[c])];
    }

    private static uint Action(string where, string? name, uint? errnoRet)
    {
        uint data = errnoRet ?? (uint)Errno.EPERM;
        switch (name)
        {
            case "SCMP_ACT_KILL" or "SCMP_ACT_KILL_THREAD":
                return SeccompAbi.SECCOMP_RET_KILL_THREAD;
            case "SCMP_ACT_KILL_PROCESS":
                return SeccompAbi.SECCOMP_RET_KILL_PROCESS;
            case "SCMP_ACT_TRAP":
                return SeccompAbi.SECCOMP_RET_TRAP;
            case "SCMP_ACT_ERRNO":
                return SeccompAbi.SECCOMP_RET_ERRNO | Bounded(data, MaxErrno);
            case "SCMP_ACT_TRACE":
                return SeccompAbi.SECCOMP_RET_TRACE | Bounded(data, ushort.MaxValue);
            case "SCMP_ACT_LOG":
                return SeccompAbi.SECCOMP_RET_LOG;
            case "SCMP_ACT_ALLOW":
                return SeccompAbi.SECCOMP_RET_ALLOW;
            case "SCMP_ACT_NOTIFY":
                throw SpecException.Unsupported($"{where} SCMP_ACT_NOTIFY", "there is no seccomp notification from inside a VM");
            default:
                throw new SpecException($"{where}: string {name} is not a valid action for seccomp");
        }

        uint Bounded(uint value, uint max) =>
            value <= max ? value : throw new SpecException($"{where}: the errno value {value} is greater than {max}");
    }

    private static ArgOperator Operator(string where, string? name) => name switch
    {
        "SCMP_CMP_NE" => ArgOperator.NotEqual,
        "SCMP_CMP_LT" => ArgOperator.Less,
        "SCMP_CMP_LE" => ArgOperator.LessOrEqual,
        "SCMP_CMP_EQ" => ArgOperator.Equal,
        "SCMP_CMP_GE" => ArgOperator.GreaterOrEqual,
        "SCMP_CMP_GT" => ArgOperator.Greater,
        "SCMP_CMP_MASKED_EQ" => ArgOperator.MaskedEqual,
        _ => throw new SpecException($"{where}: string {name} is not a valid operator for seccomp"),
    };

    private static (bool X86, bool X32) Architectures(List<string>? names)
    {
        foreach (string name in names ?? [])
        {
            if (!NativeArchitectures.Contains(name) && !ForeignArchitectures.Contains(name))
            {
                throw new SpecException($"linux.seccomp.architectures: string {name} is not a valid arch for seccomp");
            }
        }

        return (names?.Contains("SCMP_ARCH_X86") ?? false, names?.Contains("SCMP_ARCH_X32") ?? false);
    }

    private static uint Flags(List<string>? names)
    {
        // runc: a profile without the member runs as if the kernel knew no speculation mitigation for filters.
        if (names is null)
        {
            return SeccompAbi.SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        }

        uint flags = 0;
        foreach (string name in names)
        {
            flags |= name switch
            {
                // The filter is installed before the process has a second thread.
                "SECCOMP_FILTER_FLAG_TSYNC" => 0,
                "SECCOMP_FILTER_FLAG_LOG" => SeccompAbi.SECCOMP_FILTER_FLAG_LOG,
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => SeccompAbi.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
                "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" or "SECCOMP_FILTER_FLAG_NEW_LISTENER" =>
                    throw SpecException.Unsupported($"linux.seccomp.flags {name}", "there is no seccomp notification from inside a VM"),
                _ => throw new SpecException($"linux.seccomp.flags: seccomp flag \"{name}\" not known"),
            };
        }

        return flags;
    }
}
