using System.Reflection;
using MicroVm.Oci;

namespace MicroVm.Cli;

/// <summary>Version and commit of this build.</summary>
internal static class ProductVersion
{
    /// <summary>"0.1.0".</summary>
    internal static string Number => Informational.Split('+')[0];

    /// <summary>What <c>--version</c> prints: runc's lines, which callers parse.</summary>
    internal static string Text =>
        $"microvm version {Number}\ncommit: {(Informational.Split('+') is [_, { Length: > 0 } commit, ..] ? commit : "unknown")}\nspec: {new Features { Annotations = [] }.OciVersionMax}\n";

    private static string Informational =>
        typeof(ProductVersion).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion ?? "unknown";
}
