namespace MicroVm.Sandbox;

/// <summary>A container could not be started or kept running; the message says what, which and what to do.</summary>
public sealed class SandboxException : Exception
{
    /// <summary>Creates the exception.</summary>
    public SandboxException(string message)
        : base(message)
    {
    }

    /// <summary>Creates the exception with the failure underneath.</summary>
    public SandboxException(string message, Exception inner)
        : base(message, inner)
    {
    }
}
