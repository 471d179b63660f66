using System.Globalization;
using MicroVm.Linux.Native;

namespace MicroVm.Sandbox.Runtime;

/// <summary>Signals by name, as <c>kill</c> takes them: with SIG or without, in any case.</summary>
internal static class SignalNames
{
    private const int FirstRealTime = 34, LastRealTime = 64;

    // By number, from 1.
    private static readonly string[] Names =
    [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT",
        "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];

    private static readonly Dictionary<string, int> Others = new(StringComparer.Ordinal) { ["IOT"] = Libc.SIGABRT, ["CLD"] = Libc.SIGCHLD, ["POLL"] = 29, ["UNUSED"] = 31 };

    /// <summary>The number of a signal.</summary>
    /// <exception cref="SandboxException">There is none of that name.</exception>
    internal static int Parse(string text)
    {
        if (int.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int number))
        {
            return number is >= 0 and <= LastRealTime ? number : throw new SandboxException("unable to signal init: invalid argument");
        }

        string name = text.ToUpperInvariant();
        name = name.StartsWith("SIG", StringComparison.Ordinal) ? name[3..] : name;
        int index = Array.IndexOf(Names, name);
        return index >= 0 ? index + 1
            : Others.TryGetValue(name, out number) ? number
            : RealTime(name) ?? throw new SandboxException($"unknown signal \"{text}\"");
    }

    private static int? RealTime(string name)
    {
        (int from, int sign) = name.StartsWith("RTMIN", StringComparison.Ordinal) ? (FirstRealTime, '+')
            : name.StartsWith("RTMAX", StringComparison.Ordinal) ? (LastRealTime, '-') : (0, ' ');
        if (from == 0 || name.Length == 5)
        {
            return from == 0 ? null : from;
        }

        return name[5] == sign && int.TryParse(name[5..], NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int offset)
            && from + offset is >= FirstRealTime and <= LastRealTime and var number ? number : null;
    }
}
