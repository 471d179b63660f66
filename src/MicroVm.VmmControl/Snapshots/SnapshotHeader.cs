using System.Text.Json;
using MicroVm.Json;

namespace MicroVm.VmmControl.Snapshots;

/// <summary>What a snapshot is of, for people and for who chooses one: the section "header", a JSON object.</summary>
public sealed record SnapshotHeader : IJsonRecord
{
    /// <summary>Version of the section.</summary>
    public const uint Version = 1;

    private const int MaxJson = 64 << 10;
    private const int MaxMemoryMiB = 1 << 20;
    private const int MaxVcpus = 32;

    /// <summary>Version of the VMM that wrote it.</summary>
    public string Vmm { get; set; } = "";

    /// <summary>When it was written, in seconds since 1970.</summary>
    public long CreatedAt { get; set; }

    /// <summary>"standard" or "pvm": what kind of KVM the VM ran on.</summary>
    public string HostKind { get; set; } = "";

    /// <summary>The guest kernel's whole command line.</summary>
    public string CommandLine { get; set; } = "";

    /// <summary>Guest RAM in MiB: the length of the memory file.</summary>
    public int MemoryMiB { get; set; }

    /// <summary>Bytes of guest RAM that are not zero, by whole pages.</summary>
    public long MemoryBytes { get; set; }

    /// <summary>XXH3 with 128 bits of those pages, each after its number as 8 bytes; hexadecimal.</summary>
    public string MemoryChecksum { get; set; } = "";

    /// <summary>Number of vCPUs.</summary>
    public int Vcpus { get; set; }

    /// <summary>What CPUID tells the guest: one of <see cref="CpuTemplateNames"/>.</summary>
    public string CpuTemplate { get; set; } = "";

    /// <summary>The devices in the order of their windows, separated by blanks.</summary>
    public string Devices { get; set; } = "";

    string? IJsonRecord.Missing => MemoryMiB is <= 0 or > MaxMemoryMiB ? "memoryMiB" : Vcpus is <= 0 or > MaxVcpus ? "vcpus" : null;

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Vmm = members.NonNullText("vmm"u8, Vmm);
        CreatedAt = members.Number("createdAt"u8, CreatedAt);
        HostKind = members.NonNullText("hostKind"u8, HostKind);
        CommandLine = members.NonNullText("commandLine"u8, CommandLine);
        MemoryMiB = members.Number("memoryMiB"u8, MemoryMiB);
        MemoryBytes = members.Number("memoryBytes"u8, MemoryBytes);
        MemoryChecksum = members.NonNullText("memoryChecksum"u8, MemoryChecksum);
        Vcpus = members.Number("vcpus"u8, Vcpus);
        CpuTemplate = members.NonNullText("cpuTemplate"u8, CpuTemplate);
        Devices = members.NonNullText("devices"u8, Devices);
    }

    internal static byte[] Write(SnapshotHeader header) => JsonRecords.Write(header);

    internal static SnapshotHeader Read(SnapshotSection section)
    {
        if (section.Version != Version)
        {
            throw new SnapshotException($"the section \"{section.Name}\" has version {section.Version}, this program understands {Version}: make the snapshot anew");
        }

        try
        {
            return section.Content.Length <= MaxJson && JsonMembers.Read(section.Content.Span, passOthers: false, static () => new SnapshotHeader()) is { } header
                ? header
                : throw new SnapshotException($"the section \"{section.Name}\" is not a JSON object of at most {MaxJson} bytes");
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            throw new SnapshotException($"the section \"{section.Name}\" is malformed: it is not a snapshot's header");
        }
    }
}
