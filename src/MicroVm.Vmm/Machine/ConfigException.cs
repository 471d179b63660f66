namespace MicroVm.Vmm.Machine;

/// <summary>The configuration asks for something that cannot be; the message names the setting and the cure.</summary>
public sealed class ConfigException : Exception
{
    /// <summary>Creates the exception with a message for the user.</summary>
    public ConfigException(string message)
        : base(message)
    {
    }
}
