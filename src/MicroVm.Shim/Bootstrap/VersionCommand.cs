using System.Reflection;
using System.Text;

namespace MicroVm.Shim.Bootstrap;

/// <summary><c>-v</c>.</summary>
internal static class VersionCommand
{
    /// <summary>"0.1.0".</summary>
    internal static string Number => Informational.Split('+')[0];

    /// <summary>The commit that was built; "unknown" where the build had none.</summary>
    internal static string Revision => Informational.Split('+') is [_, { Length: > 0 } commit, ..] ? commit : "unknown";

    private static string Informational =>
        typeof(VersionCommand).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion ?? "unknown";

    /// <summary>Prints the version as containerd's own shims do.</summary>
    internal static int Run()
    {
        StandardOutput.Write(Encoding.UTF8.GetBytes($"containerd-shim-microvm-v2:\n  Version:  {Number}\n  Revision: {Revision}\n"));
        return 0;
    }
}
