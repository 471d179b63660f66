using MicroVm.Json;

namespace MicroVm.Sandbox.Templates;

/// <summary>A template from which a VM would have started.</summary>
internal sealed record MissingTemplate : IJsonRecord
{
    /// <summary>Guest memory in MiB.</summary>
    public int MemoryMiB { get; set; }

    /// <summary>Number of vCPUs.</summary>
    public int Vcpus { get; set; }

    /// <summary>How many vCPUs there may be while the VM runs.</summary>
    public int MaxVcpus { get; set; }

    /// <summary>One of <see cref="VmmControl.CpuTemplateNames"/>.</summary>
    public string CpuTemplate { get; set; } = "";

    /// <summary>Seconds that the guest may take to boot.</summary>
    public int TimeoutSeconds { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        MemoryMiB = members.Number("memoryMiB"u8, MemoryMiB);
        Vcpus = members.Number("vcpus"u8, Vcpus);
        MaxVcpus = members.Number("maxVcpus"u8, MaxVcpus);
        CpuTemplate = members.NonNullText("cpuTemplate"u8, CpuTemplate);
        TimeoutSeconds = members.Number("timeoutSeconds"u8, TimeoutSeconds);
    }
}
