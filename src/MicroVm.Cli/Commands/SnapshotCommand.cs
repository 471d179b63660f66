using System.Globalization;
using System.Text;
using MicroVm.Cli.Parsing;
using MicroVm.Linux;
using MicroVm.Sandbox;
using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Cli.Commands;

/// <summary><c>microvm snapshot inspect</c>: what a state file holds.</summary>
internal static class SnapshotCommand
{
    internal static Command Command => new()
    {
        Name = "snapshot",
        Arguments = "inspect FILE",
        Help = "show what the state file of a snapshot is of (docs/SNAPSHOTS.md)",
        MinArguments = 2,
        MaxArguments = 2,
        Run = call =>
        {
            if (call.Arguments[0] != "inspect")
            {
                throw new SandboxException($"\"snapshot {call.Arguments[0]}\" is not known: use inspect");
            }

            string path = call.Arguments[1];
            try
            {
                using SafeFd file = RegularFile.Open(path);
                Output.Write(Describe(SnapshotFile.Parse(HostFile.ReadToEnd(file, SnapshotFormat.MaxLength, path))));
            }
            catch (SnapshotException e)
            {
                throw new SandboxException($"{path}: {e.Message}", e);
            }

            return 0;
        },
    };

    /// <summary>The header's members and then the sections, a line each. Texts of the file cannot break out of their lines.</summary>
    internal static string Describe(SnapshotFile snapshot)
    {
        SnapshotHeader h = snapshot.Header;
        StringBuilder text = new();
        Line("format version", SnapshotFormat.Version.ToString(CultureInfo.InvariantCulture));
        Line("VMM", h.Vmm);
        Line("created", DateTimeOffset.UnixEpoch.AddSeconds(Math.Clamp(h.CreatedAt, 0, uint.MaxValue)).ToString("yyyy-MM-ddTHH:mm:ssZ", CultureInfo.InvariantCulture));
        Line("host kind", h.HostKind);
        Line("memory", string.Create(CultureInfo.InvariantCulture, $"{h.MemoryMiB} MiB, of which {h.MemoryBytes >> 10} KiB are saved"));
        Line("memory checksum", h.MemoryChecksum);
        Line("vCPUs", h.Vcpus.ToString(CultureInfo.InvariantCulture));
        Line("CPU template", h.CpuTemplate);
        Line("devices", h.Devices);
        Line("command line", h.CommandLine);
        text.Append(CultureInfo.InvariantCulture, $"\n{"SECTION",-34}{"VERSION",-9}BYTES\n");
        foreach (SnapshotSection section in snapshot.Sections)
        {
            text.Append(CultureInfo.InvariantCulture, $"{section.Name,-34}{section.Version,-9}{section.Content.Length}\n");
        }

        return text.ToString();

        void Line(string name, string value) =>
            text.Append(CultureInfo.InvariantCulture, $"{name + ":",-18}{string.Concat(value.Select(c => char.IsControl(c) ? '?' : c))}\n");
    }
}
