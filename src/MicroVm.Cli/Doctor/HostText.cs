using System.Text;
using MicroVm.Linux;

namespace MicroVm.Cli.Doctor;

/// <summary>Small text files of the host.</summary>
internal static class HostText
{
    private const int MaxBytes = 1 << 20;

    /// <summary>A file's text without the white space around it; null when it cannot be read.</summary>
    internal static string? Read(string path) =>
        HostFile.TryReadAllBytes(path, MaxBytes, out _) is { } bytes ? Encoding.UTF8.GetString(bytes).Trim('\0', ' ', '\t', '\r', '\n') : null;
}
