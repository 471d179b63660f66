namespace MicroVm.Oci.Seccomp;

/// <summary>How an argument is compared, unsigned and 64 bits wide.</summary>
public enum ArgOperator
{
#pragma warning disable CS1591 // SCMP_CMP_*
    NotEqual,
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,

    /// <summary><c>(argument &amp; Value) == (ValueTwo &amp; Value)</c>.</summary>
    MaskedEqual,
#pragma warning restore CS1591
}

/// <summary>One comparison of argument <paramref name="Index"/> (0 to 5).</summary>
public readonly record struct ArgCondition(int Index, ArgOperator Operator, ulong Value, ulong ValueTwo)
{
    /// <summary>Whether <paramref name="argument"/> satisfies the comparison.</summary>
    public bool Holds(ulong argument) => Operator switch
    {
        ArgOperator.NotEqual => argument != Value,
        ArgOperator.Less => argument < Value,
        ArgOperator.LessOrEqual => argument <= Value,
        ArgOperator.Equal => argument == Value,
        ArgOperator.GreaterOrEqual => argument >= Value,
        ArgOperator.Greater => argument > Value,
        _ => (argument & Value) == (ValueTwo & Value),
    };
}

/// <summary>An action taken when every condition holds.</summary>
public sealed record ConditionalRule(IReadOnlyList<ArgCondition> Conditions, uint Action);

/// <summary>
/// What a profile says of one system call: one action, or conditional rules of which the first that holds decides, and
/// the default action when none does.
/// </summary>
public sealed class SyscallRules
{
    /// <summary>The action whatever the arguments, as a SECCOMP_RET_* value; null when rules decide.</summary>
    public uint? Unconditional { get; private set; }

    /// <summary>In the profile's order.</summary>
    public List<ConditionalRule> Conditional { get; } = [];

    /// <summary>Adds a rule as libseccomp does: an unconditional one displaces conditional ones, and the first unconditional one stays.</summary>
    public void Add(IReadOnlyList<ArgCondition> conditions, uint action)
    {
        ArgumentNullException.ThrowIfNull(conditions);
        if (Unconditional is not null)
        {
            return;
        }

        if (conditions.Count == 0)
        {
            Unconditional = action;
            Conditional.Clear();
            return;
        }

        Conditional.Add(new ConditionalRule(conditions, action));
    }
}

/// <summary>A seccomp profile with names resolved to numbers.</summary>
public sealed class SeccompProfile
{
    /// <summary>For system calls that no rule decides, as a SECCOMP_RET_* value.</summary>
    public required uint DefaultAction { get; init; }

    /// <summary>For 32-bit system calls (int 0x80).</summary>
    public required uint I386Action { get; init; }

    /// <summary>For system calls of the x32 ABI.</summary>
    public required uint X32Action { get; init; }

    /// <summary>
    /// System calls above this number do not exist as far as the profile knows and answer ENOSYS, so that programs fall
    /// back to older ones; null when they get the default action.
    /// </summary>
    public int? LastKnown { get; init; }

    /// <summary>SECCOMP_FILTER_FLAG_*.</summary>
    public required uint Flags { get; init; }

    /// <summary>By system call number.</summary>
    public required SortedDictionary<int, SyscallRules> Syscalls { get; init; }
}
