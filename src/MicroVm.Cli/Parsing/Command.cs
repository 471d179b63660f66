using MicroVm.Sandbox;
using MicroVm.Sandbox.Configuration;
using MicroVm.Sandbox.Runtime;

namespace MicroVm.Cli.Parsing;

/// <summary>A command of the command line.</summary>
internal sealed record Command
{
    /// <summary>Its name.</summary>
    internal required string Name { get; init; }

    /// <summary>What follows the flags, for the help.</summary>
    internal string Arguments { get; init; } = "";

    /// <summary>One line.</summary>
    internal required string Help { get; init; }

    /// <summary>Its flags.</summary>
    internal Flag[] Flags { get; init; } = [];

    /// <summary>Whether what follows the first argument belongs to another program; elsewhere flags may follow arguments, too.</summary>
    internal bool FlagsEndAtFirstArgument { get; init; }

    /// <summary>Fewest arguments.</summary>
    internal int MinArguments { get; init; }

    /// <summary>Most arguments.</summary>
    internal int MaxArguments { get; init; } = int.MaxValue;

    /// <summary>Exit status of a failure of the runtime's own.</summary>
    internal int FailureStatus { get; init; } = 1;

    /// <summary>Put before the text of a failure, as runc does for some commands.</summary>
    internal string FailurePrefix { get; init; } = "";

    /// <summary>Carries it out; returns the exit status.</summary>
    internal required Func<Invocation, int> Run { get; init; }
}

/// <summary>A command with its parsed arguments.</summary>
internal sealed class Invocation(FlagValues globals, FlagValues flags, IReadOnlyList<string> arguments, RuntimeLog log)
{
    /// <summary>The command's flags.</summary>
    internal FlagValues Flags { get; } = flags;

    /// <summary>What follows them.</summary>
    internal IReadOnlyList<string> Arguments { get; } = arguments;

    /// <summary>The first argument.</summary>
    internal string Id => Arguments[0];

    /// <summary>The log that the global flags ask for.</summary>
    internal RuntimeLog Log { get; } = log;

    /// <summary>What the administrator decided: the configuration file and the global flags. Read on each call.</summary>
    internal RuntimeConfiguration Configuration => GlobalFlags.Configuration(globals);

    /// <summary>The runtime on the state folder that the global flags ask for.</summary>
    internal ContainerRuntime Runtime => new(GlobalFlags.Options(globals), Log);
}
