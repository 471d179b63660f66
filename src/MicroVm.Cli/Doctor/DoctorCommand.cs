using System.Text;
using MicroVm.Cli.Parsing;

namespace MicroVm.Cli.Doctor;

/// <summary><c>microvm doctor</c>: what the host offers and what is missing, line by line.</summary>
internal static class DoctorCommand
{
    internal static Command Command => new()
    {
        Name = "doctor",
        Help = "list what this host offers and what is missing",
        MaxArguments = 0,
        Run = call => Run(HostChecks.All(call.Configuration)),
    };

    /// <summary>Prints the findings; 1 when something that is required is missing.</summary>
    internal static int Run(IReadOnlyList<Finding> findings)
    {
        StringBuilder text = new();
        int width = findings.Max(f => f.Subject.Length);
        foreach (Finding f in findings)
        {
            text.Append(f.State switch { FindingState.Ok => "ok       ", FindingState.Note => "note     ", _ => "MISSING  " });
            text.Append(f.Subject.PadRight(width)).Append("  ").Append(f.Detail).Append('\n');
        }

        bool missing = findings.Any(f => f.State == FindingState.Missing);
        text.Append(missing ? "containers cannot run here until what is missing is there\n" : "containers can run here\n");
        Output.Write(text.ToString());
        return missing ? 1 : 0;
    }
}
