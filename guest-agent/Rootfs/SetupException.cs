using MicroVm.Linux;

namespace MicroVm.Agent.Rootfs;

/// <summary>A step of a container's or process's setup failed; the message is for the user, in runc's words where it has them.</summary>
public sealed class SetupException : Exception
{
    /// <summary>Creates the exception.</summary>
    public SetupException(string message, Exception? inner = null)
        : base(message, inner)
    {
    }

    /// <summary>Wraps a system call's failure: <paramref name="what"/>, then the errno as Go programs print it.</summary>
    public SetupException(string what, LinuxException inner)
        : this($"{what}: {Child.ChildReport.Text((inner ?? throw new ArgumentNullException(nameof(inner))).Errno)}", (Exception)inner)
    {
    }
}
