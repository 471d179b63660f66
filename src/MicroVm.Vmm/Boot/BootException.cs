namespace MicroVm.Vmm.Boot;

/// <summary>A guest cannot be started from what the configuration names; the message names the file and the broken rule.</summary>
public sealed class BootException : Exception
{
    /// <summary>Creates the exception with a message for the user.</summary>
    public BootException(string message)
        : base(message)
    {
    }

    /// <summary>Creates the exception for <paramref name="file"/>, which breaks <paramref name="rule"/>.</summary>
    public BootException(string file, string rule)
        : base($"{file}: {rule}")
    {
    }
}
