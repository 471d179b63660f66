using MicroVm.Sandbox;

namespace MicroVm.Cli.Install;

/// <summary>How an engine's configuration comes to name this runtime, and no longer does. What others wrote there stays as it is.</summary>
internal abstract class EngineSetup
{
    /// <summary>The engine's name on the command line.</summary>
    internal required string Engine { get; init; }

    /// <summary>The file that is written, from the root of the host.</summary>
    internal required string File { get; init; }

    /// <summary>What is to be done for the engine to see it.</summary>
    internal required string Then { get; init; }

    /// <summary>The file's text with the runtime in it; the same text where it is there already.</summary>
    /// <param name="text">What the file has; null when there is none.</param>
    /// <param name="program">Absolute path of <c>microvm</c>.</param>
    /// <exception cref="SandboxException">What somebody else wrote is in the way.</exception>
    internal abstract string With(string? text, string program);

    /// <summary>The file's text without the runtime; null when nothing is left that is worth a file.</summary>
    /// <exception cref="SandboxException">The runtime of that name is somebody else's.</exception>
    internal abstract string? Without(string text);

    /// <summary>An error that names the file.</summary>
    protected SandboxException InTheWay(string what) => new($"{File}: {what}");
}
