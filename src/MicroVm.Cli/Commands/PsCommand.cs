using System.Diagnostics;
using System.Globalization;
using System.Text;
using MicroVm.Cli.Parsing;
using MicroVm.Sandbox;

namespace MicroVm.Cli.Commands;

/// <summary>
/// <c>microvm ps</c>: the host's processes that stand for the container's, as callers look them up on the host. What runs
/// beneath them is in the guest (<c>microvm exec ID ps</c>).
/// </summary>
internal static class PsCommand
{
    internal static Command Command => new()
    {
        Name = "ps",
        Arguments = "<container-id> [ps options]",
        Help = "display the host's processes that stand for those inside a container",
        MinArguments = 1,
        FlagsEndAtFirstArgument = true,
        Flags = [new("format, f", "FORMAT", "table or json (default: table)")],
        Run = call =>
        {
            IReadOnlyList<int> pids = call.Runtime.ProcessIds(call.Id);
            Output.Write((call.Flags.Text("format") ?? "table") switch
            {
                "json" => (pids.Count == 0 ? "null" : $"[{string.Join(',', pids)}]") + "\n",
                "table" => Table(pids, call.Arguments.Count > 1 ? [.. call.Arguments.Skip(1)] : ["-ef"]),
                _ => throw new SandboxException("invalid format option"),
            });
            return 0;
        },
    };

    /// <summary>The lines of ps(1) that belong to <paramref name="pids"/>, under its head line.</summary>
    /// <exception cref="SandboxException">ps cannot be run, or its output has no PID column.</exception>
    internal static string Filter(string output, IReadOnlyList<int> pids)
    {
        string[] lines = output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        int column = lines.Length == 0 ? -1 : Array.IndexOf(Fields(lines[0]), "PID");
        if (column < 0)
        {
            throw new SandboxException("couldn't find PID field in ps output");
        }

        StringBuilder text = new();
        text.Append(lines[0]).Append('\n');
        foreach (string line in lines.Skip(1))
        {
            string[] fields = Fields(line);
            if (fields.Length > column && int.TryParse(fields[column], NumberStyles.None, CultureInfo.InvariantCulture, out int pid) && pids.Contains(pid))
            {
                text.Append(line).Append('\n');
            }
        }

        return text.ToString();
    }

    private static string[] Fields(string line) => line.Split((char[])[' ', '\t'], StringSplitOptions.RemoveEmptyEntries);

    private static string Table(IReadOnlyList<int> pids, string[] arguments)
    {
        try
        {
            using Process ps = Process.Start(new ProcessStartInfo("ps", arguments) { RedirectStandardOutput = true, RedirectStandardError = true })!;
            Task<string> errors = ps.StandardError.ReadToEndAsync();
            string output = ps.StandardOutput.ReadToEnd();
            ps.WaitForExit();
            return ps.ExitCode == 0 ? Filter(output, pids) : throw new SandboxException($"exit status {ps.ExitCode}: {output}{errors.Result}");
        }
        catch (System.ComponentModel.Win32Exception e)
        {
            throw new SandboxException($"ps cannot be run: {e.Message}", e);
        }
    }
}
