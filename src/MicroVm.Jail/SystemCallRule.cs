using MicroVm.Linux;

namespace MicroVm.Jail;

/// <summary>What a filter does about one system call.</summary>
public readonly record struct SystemCallRule
{
    private SystemCallRule(SystemCall number) => Number = number;

    /// <summary>The system call.</summary>
    public SystemCall Number { get; }

    /// <summary>The argument that decides, 0 to 5; -1: none does.</summary>
    public int Argument { get; private init; } = -1;

    /// <summary>The bits of the argument's lower half that count.</summary>
    public uint Mask { get; private init; }

    /// <summary>Values of these bits with which the call is allowed; with others the process ends.</summary>
    public IReadOnlyList<uint> Values { get; private init; } = [];

    /// <summary>The call fails with this error; OK: it is carried out.</summary>
    public Errno Error { get; private init; }

    /// <summary>Carries the call out.</summary>
    public static SystemCallRule Allow(SystemCall number) => new(number);

    /// <summary>Refuses the call quietly.</summary>
    public static SystemCallRule Fail(SystemCall number, Errno error) => new(number) { Error = error };

    /// <summary>Carries the call out when an argument has one of <paramref name="values"/>.</summary>
    public static SystemCallRule WhenArgument(SystemCall number, int argument, uint mask, params uint[] values) =>
        new(number) { Argument = argument, Mask = mask, Values = values };
}
