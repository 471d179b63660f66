using System.CommandLine;
using MicroVm.Sandbox;

namespace MicroVm.Cli;

/// <summary>The options before the command, as runc has them. Accepted after it, too.</summary>
internal sealed class GlobalOptions
{
    private readonly Option<string> _root = new("--root")
    {
        Description = "root directory for storage of container state (this should be located in tmpfs)",
        DefaultValueFactory = _ => "/run/microvm",
        Recursive = true,
    };

    private readonly Option<string?> _log = new("--log") { Description = "file to append the log to (default: standard error)", Recursive = true };

    private readonly Option<string> _logFormat = new("--log-format") { Description = "text or json", DefaultValueFactory = _ => "text", Recursive = true };

    private readonly Option<bool> _debug = new("--debug") { Description = "log more", Recursive = true };

    // Taken and without effect: no cgroup of the host is made yet.
    private readonly Option<bool> _systemdCgroup = new("--systemd-cgroup") { Description = "accepted for callers of runc; has no effect", Recursive = true };

    private readonly Option<string?> _rootless = new("--rootless") { Description = "accepted for callers of runc; has no effect", Recursive = true };

    /// <summary>Adds the options to the root command.</summary>
    internal void AddTo(RootCommand command)
    {
        foreach (Option option in (Option[])[_root, _log, _logFormat, _debug, _systemdCgroup, _rootless])
        {
            command.Options.Add(option);
        }
    }

    internal string Root(ParseResult result) => result.GetValue(_root)!;

    /// <summary>Opens the log that the options ask for.</summary>
    /// <exception cref="SandboxException">The format is unknown.</exception>
    /// <exception cref="Linux.LinuxException">The file cannot be opened.</exception>
    internal RuntimeLog OpenLog(ParseResult result)
    {
        string format = result.GetValue(_logFormat)!;
        return format is "text" or "json"
            ? RuntimeLog.Open(result.GetValue(_log) is { Length: > 0 } file ? file : null, format == "json", result.GetValue(_debug))
            : throw new SandboxException($"invalid log-format: {format}, it is text or json");
    }
}
