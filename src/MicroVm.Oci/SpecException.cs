namespace MicroVm.Oci;

/// <summary>The bundle asks for something malformed, contradictory or not supported; the message names it.</summary>
public sealed class SpecException : Exception
{
    /// <summary>Creates the exception with a whole message.</summary>
    public SpecException(string message)
        : base(message)
    {
    }

    /// <summary>Creates the exception with the failure underneath.</summary>
    public SpecException(string message, Exception inner)
        : base(message, inner)
    {
    }

    /// <summary>Something legal that this runtime does not do.</summary>
    public static SpecException Unsupported(string property, string reason) => new($"{property} is not supported: {reason}");
}
