using MicroVm.Cli.Parsing;
using MicroVm.Linux;
using MicroVm.Sandbox;
using MicroVm.Sandbox.Runtime;

namespace MicroVm.Cli;

/// <summary>The flags before the command, as runc has them.</summary>
internal static class GlobalFlags
{
    private const string DefaultRoot = "/run/microvm";

    /// <summary>All of them.</summary>
    internal static Flag[] All =>
    [
        new("root", "DIR", $"root directory for storage of container state (default: {DefaultRoot})"),
        new("log", "FILE", "file to append the log to (default: standard error)"),
        new("log-format", "FORMAT", "text or json (default: text)"),
        new("debug", null, "log more"),
        new("systemd-cgroup", null, "linux.cgroupsPath has the form slice:prefix:name"),
        new("rootless", "VALUE", "accepted for callers of runc: true, false or auto; has no effect"),
        new("criu", "FILE", "accepted for callers of runc; has no effect"),
        new("version, v", null, "print the version"),
        new("help, h", null, "show help"),
    ];

    /// <summary>For the runtime.</summary>
    internal static RuntimeOptions Options(FlagValues values) => new()
    {
        Root = values.Text("root") ?? DefaultRoot,
        LogFile = values.Text("log"),
        LogJson = values.Text("log-format") == "json",
        Debug = values.On("debug"),
        SystemdCgroup = values.On("systemd-cgroup"),
    };

    /// <summary>Opens the log that the flags ask for.</summary>
    /// <exception cref="SandboxException">The format is unknown, or the file cannot be opened.</exception>
    internal static RuntimeLog OpenLog(FlagValues values)
    {
        string format = values.Text("log-format") ?? "text";
        if (format is not ("text" or "json"))
        {
            throw new SandboxException($"invalid log-format: {format}");
        }

        try
        {
            return RuntimeLog.Open(values.Text("log"), format == "json", values.On("debug"));
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"open {values.Text("log")}: {e.Reason}", e);
        }
    }
}
