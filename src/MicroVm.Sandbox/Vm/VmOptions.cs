using System.Text.Json;
using MicroVm.Json;
using MicroVm.Sandbox.State;

namespace MicroVm.Sandbox.Vm;

/// <summary>What the caller asks of the VM; null leaves it to the bundle's annotations and limits.</summary>
public sealed record VmOptions : IHandJson<VmOptions>
{
    /// <summary>Ten times what the slowest hosts known take.</summary>
    public const int DefaultStartTimeoutSeconds = 180;

    /// <summary>Guest memory in MiB.</summary>
    public int? MemoryMiB { get; init; }

    /// <summary>Number of vCPUs.</summary>
    public int? Vcpus { get; init; }

    /// <summary>Guest memory in MiB where the container has no limit; null for <see cref="VmShape.DefaultMemoryMiB"/>.</summary>
    public int? DefaultMemoryMiB { get; init; }

    /// <summary>vCPUs where the container has no quota; null for one.</summary>
    public int? DefaultVcpus { get; init; }

    /// <summary>Annotations of the bundle that have an effect (<see cref="VmAnnotations"/>), separated by commas; null for none.</summary>
    public string? AllowedAnnotations { get; init; }

    /// <summary>The VM has copies of its own of kernel and agent: no page of them is shared with other VMs.</summary>
    public bool PrivateImages { get; init; }

    /// <summary>Start from a template where one fits.</summary>
    public bool Template { get; init; }

    /// <summary>Guest kernel.</summary>
    public string? Kernel { get; init; }

    /// <summary>Initial RAM file system.</summary>
    public string? Initramfs { get; init; }

    /// <summary>Added to the kernel's command line.</summary>
    public string? KernelArguments { get; init; }

    /// <summary>Seconds that the guest may take for each step of a start; null for <see cref="DefaultStartTimeoutSeconds"/>.</summary>
    public int? StartTimeoutSeconds { get; init; }

    /// <summary>What CPUID tells of the processor: one of <see cref="VmmControl.CpuTemplateNames"/>.</summary>
    public string? CpuTemplate { get; init; }

    /// <summary>Where the serial console is appended.</summary>
    public string? ConsoleLog { get; init; }

    internal TimeSpan StartTimeout => TimeSpan.FromSeconds(StartTimeoutSeconds ?? DefaultStartTimeoutSeconds);

    void IHandJson<VmOptions>.WriteMembers(Utf8JsonWriter writer)
    {
        writer.WriteOptional("memoryMiB"u8, MemoryMiB);
        writer.WriteOptional("vcpus"u8, Vcpus);
        writer.WriteOptional("defaultMemoryMiB"u8, DefaultMemoryMiB);
        writer.WriteOptional("defaultVcpus"u8, DefaultVcpus);
        writer.WriteOptional("allowedAnnotations"u8, AllowedAnnotations);
        writer.WriteBoolean("privateImages"u8, PrivateImages);
        writer.WriteBoolean("template"u8, Template);
        writer.WriteOptional("cpuTemplate"u8, CpuTemplate);
        writer.WriteOptional("kernel"u8, Kernel);
        writer.WriteOptional("initramfs"u8, Initramfs);
        writer.WriteOptional("kernelArguments"u8, KernelArguments);
        writer.WriteOptional("startTimeoutSeconds"u8, StartTimeoutSeconds);
        writer.WriteOptional("consoleLog"u8, ConsoleLog);
    }

    static VmOptions IHandJson<VmOptions>.ReadMembers(ref Utf8JsonReader reader)
    {
        int? memoryMiB = null, vcpus = null, startTimeoutSeconds = null, defaultMemoryMiB = null, defaultVcpus = null;
        bool privateImages = false, template = false;
        string? allowedAnnotations = null, cpuTemplate = null, kernel = null, initramfs = null, kernelArguments = null, consoleLog = null;
        while (HandJson.NextMember(ref reader))
        {
            if (HandJson.Is(ref reader, "memoryMiB"u8))
            {
                memoryMiB = reader.GetInt32();
            }
            else if (HandJson.Is(ref reader, "vcpus"u8))
            {
                vcpus = reader.GetInt32();
            }
            else if (HandJson.Is(ref reader, "defaultMemoryMiB"u8))
            {
                defaultMemoryMiB = reader.GetInt32();
            }
            else if (HandJson.Is(ref reader, "defaultVcpus"u8))
            {
                defaultVcpus = reader.GetInt32();
            }
            else if (HandJson.Is(ref reader, "allowedAnnotations"u8))
            {
                allowedAnnotations = reader.GetString();
            }
            else if (HandJson.Is(ref reader, "privateImages"u8))
            {
                privateImages = reader.GetBoolean();
            }
            else if (HandJson.Is(ref reader, "template"u8))
            {
                template = reader.GetBoolean();
            }
            else if (HandJson.Is(ref reader, "cpuTemplate"u8))
            {
                cpuTemplate = reader.GetString();
            }
            else if (HandJson.Is(ref reader, "kernel"u8))
            {
                kernel = reader.GetString();
            }
            else if (HandJson.Is(ref reader, "initramfs"u8))
            {
                initramfs = reader.GetString();
            }
            else if (HandJson.Is(ref reader, "kernelArguments"u8))
            {
                kernelArguments = reader.GetString();
            }
            else if (HandJson.Is(ref reader, "startTimeoutSeconds"u8))
            {
                startTimeoutSeconds = reader.GetInt32();
            }
            else if (HandJson.Is(ref reader, "consoleLog"u8))
            {
                consoleLog = reader.GetString();
            }
            else
            {
                HandJson.Pass(ref reader);
            }
        }

        return new VmOptions
        {
            MemoryMiB = memoryMiB,
            Vcpus = vcpus,
            DefaultMemoryMiB = defaultMemoryMiB,
            DefaultVcpus = defaultVcpus,
            AllowedAnnotations = allowedAnnotations,
            PrivateImages = privateImages,
            Template = template,
            CpuTemplate = cpuTemplate,
            Kernel = kernel,
            Initramfs = initramfs,
            KernelArguments = kernelArguments,
            StartTimeoutSeconds = startTimeoutSeconds,
            ConsoleLog = consoleLog,
        };
    }
}
