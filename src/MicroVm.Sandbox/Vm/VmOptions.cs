using MicroVm.Json;

namespace MicroVm.Sandbox.Vm;

/// <summary>What the caller asks of the VM; null leaves it to the bundle's annotations and limits.</summary>
public sealed record VmOptions : IJsonRecord
{
    /// <summary>Ten times what the slowest hosts known take.</summary>
    public const int DefaultStartTimeoutSeconds = 180;

    /// <summary>Guest memory in MiB.</summary>
    public int? MemoryMiB { get; set; }

    /// <summary>Number of vCPUs.</summary>
    public int? Vcpus { get; set; }

    /// <summary>Guest memory in MiB where the container has no limit; null for <see cref="VmShape.DefaultMemoryMiB"/>.</summary>
    public int? DefaultMemoryMiB { get; set; }

    /// <summary>vCPUs where the container has no quota; null for one.</summary>
    public int? DefaultVcpus { get; set; }

    /// <summary>How many vCPUs a VM may have while it runs; null for <see cref="VmShape.DefaultMaxVcpus"/>.</summary>
    public int? MaxVcpus { get; set; }

    /// <summary>Annotations of the bundle that have an effect (<see cref="VmAnnotations"/>), separated by commas; null for none.</summary>
    public string? AllowedAnnotations { get; set; }

    /// <summary>The VM has copies of its own of kernel and agent: no page of them is shared with other VMs.</summary>
    public bool PrivateImages { get; set; }

    /// <summary>Start from a template where one fits.</summary>
    public bool Template { get; set; }

    /// <summary>Make a template in the background where none fits; only with <see cref="Template"/>.</summary>
    public bool MakesTemplates { get; set; }

    /// <summary>Guest kernel.</summary>
    public string? Kernel { get; set; }

    /// <summary>Initial RAM file system.</summary>
    public string? Initramfs { get; set; }

    /// <summary>Added to the kernel's command line.</summary>
    public string? KernelArguments { get; set; }

    /// <summary>Seconds that the guest may take for each step of a start; null for <see cref="DefaultStartTimeoutSeconds"/>.</summary>
    public int? StartTimeoutSeconds { get; set; }

    /// <summary>What CPUID tells of the processor: one of <see cref="VmmControl.CpuTemplateNames"/>.</summary>
    public string? CpuTemplate { get; set; }

    /// <summary>Where the serial console is appended.</summary>
    public string? ConsoleLog { get; set; }

    internal TimeSpan StartTimeout => TimeSpan.FromSeconds(StartTimeoutSeconds ?? DefaultStartTimeoutSeconds);

    void IJsonRecord.Members(ref JsonMembers members)
    {
        MemoryMiB = members.Number("memoryMiB"u8, MemoryMiB);
        Vcpus = members.Number("vcpus"u8, Vcpus);
        DefaultMemoryMiB = members.Number("defaultMemoryMiB"u8, DefaultMemoryMiB);
        DefaultVcpus = members.Number("defaultVcpus"u8, DefaultVcpus);
        MaxVcpus = members.Number("maxVcpus"u8, MaxVcpus);
        AllowedAnnotations = members.Text("allowedAnnotations"u8, AllowedAnnotations);
        PrivateImages = members.Flag("privateImages"u8, PrivateImages);
        Template = members.Flag("template"u8, Template);
        MakesTemplates = members.Flag("makesTemplates"u8, MakesTemplates);
        CpuTemplate = members.Text("cpuTemplate"u8, CpuTemplate);
        Kernel = members.Text("kernel"u8, Kernel);
        Initramfs = members.Text("initramfs"u8, Initramfs);
        KernelArguments = members.Text("kernelArguments"u8, KernelArguments);
        StartTimeoutSeconds = members.Number("startTimeoutSeconds"u8, StartTimeoutSeconds);
        ConsoleLog = members.Text("consoleLog"u8, ConsoleLog);
    }
}
