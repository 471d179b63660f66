using System.Globalization;
using MicroVm.Linux;
using MicroVm.Oci;
using MicroVm.Oci.Cgroups;
using MicroVm.Oci.Config;
using MicroVm.VmmControl;

namespace MicroVm.Sandbox.Vm;

/// <summary>
/// Size of a VM: the command's flags before annotations, where they are allowed, before the container's limits, before the
/// host's configuration, before defaults.
/// </summary>
/// <param name="MemoryMiB">Guest memory.</param>
/// <param name="Vcpus">Number of vCPUs.</param>
/// <param name="CpuTemplate">One of <see cref="CpuTemplateNames"/>.</param>
/// <param name="KernelArguments">Added to the kernel's command line.</param>
/// <param name="HostCpus">Host CPUs that the VM may use (cpuset.cpus); empty: all.</param>
public sealed record VmShape(int MemoryMiB, int Vcpus, string CpuTemplate, string KernelArguments, IReadOnlyList<int> HostCpus)
{
    /// <summary>
    /// Memory of a VM whose container has no limit, in MiB: a JVM, MySQL or a build fits, and an idle VM has 13 MB more of the host's
    /// memory than one of 256 (docs/CALLERS.md, "Size"). No more than half of the host's.
    /// </summary>
    public const int DefaultMemoryMiB = 1024;

    /// <summary>Least memory of a VM whose container has a limit, in MiB.</summary>
    public const int LeastLimitedMemoryMiB = 128;

    /// <summary>Least memory in which kernel and agent start.</summary>
    public const int MinMemoryMiB = 48;

    /// <summary>What kernel and agent need beside a container that uses all of its limit.</summary>
    public const int OverheadMiB = 64;

    /// <summary>
    /// No file that the container makes or changes on the host gets a set-user-id or set-group-id bit, or capabilities: for containers
    /// without a user namespace, whose root is the host's on volumes.
    /// </summary>
    public bool StripSetId { get; init; }

    /// <summary>Shared mappings of files are the host's pages; otherwise the guest's own copies.</summary>
    public bool MapsFiles { get; init; } = true;

    /// <summary>How much may be added to the memory while the VM runs, in MiB: up to the host's. None for kernels that are not this project's.</summary>
    public int GrowthMiB { get; init; }

    /// <summary>How many vCPUs there may be while the VM runs, at least <see cref="Vcpus"/>. No others for kernels that are not this project's.</summary>
    public int MaxVcpus { get; init; } = Vcpus;

    /// <summary>How many vCPUs a VM may have while it runs, on a host that has as many CPUs: each that it does not use takes some memory.</summary>
    public const int DefaultMaxVcpus = 4;

    private const int MaxAllowedVcpus = 32;
    private const int MaxMemoryMiB = 1 << 20;

    // Linux adds memory by 128 MiB.
    private const int GrowthUnitMiB = 128;
    private const ulong DefaultPeriod = 100_000;

    /// <summary>Decides a VM's size.</summary>
    /// <exception cref="SandboxException">A value is out of range.</exception>
    /// <exception cref="SpecException">A cpuset is malformed.</exception>
    public static VmShape Resolve(Spec spec, VmOptions options, long hostMemoryMiB, int hostCpus)
    {
        ArgumentNullException.ThrowIfNull(spec);
        ArgumentNullException.ThrowIfNull(options);
        VmAnnotations.Check(spec.Annotations, options.AllowedAnnotations);
        Resources? resources = spec.Linux?.Resources;
        (long? limit, CpuResources? cpu) = CriAnnotations.Size(spec);
        IReadOnlyList<int> cpus = CpuSet.Parse(resources?.Cpu?.Cpus, "linux.resources.cpu.cpus");

        int memory = options.MemoryMiB ?? Annotation(spec, VmAnnotations.Memory) ?? MemoryFor(limit, options.DefaultMemoryMiB, hostMemoryMiB);
        if (memory < MinMemoryMiB || memory > hostMemoryMiB)
        {
            throw new SandboxException(
                $"{memory} MiB of VM memory are not possible: at least {MinMemoryMiB} MiB are needed for kernel and agent, and the host has {hostMemoryMiB} MiB");
        }

        int vcpus = options.Vcpus ?? Annotation(spec, VmAnnotations.Vcpus) ?? VcpusFor(cpu, options.DefaultVcpus, cpus.Count, hostCpus);
        if (vcpus is < 1 or > MaxAllowedVcpus)
        {
            throw new SandboxException($"{vcpus} vCPUs are not possible: 1 to {MaxAllowedVcpus}");
        }

        string template = options.CpuTemplate ?? spec.Annotations?.GetValueOrDefault(VmAnnotations.CpuTemplate) ?? CpuTemplateNames.Host;
        if (!CpuTemplateNames.All.Contains(template))
        {
            throw new SandboxException($"there is no CPU template \"{template}\": it may be {string.Join(", ", CpuTemplateNames.All)}");
        }

        string annotated = spec.Annotations?.GetValueOrDefault(VmAnnotations.KernelArguments) ?? "";
        return new VmShape(memory, vcpus, template, $"{annotated} {options.KernelArguments}".Trim(), cpus)
        {
            StripSetId = Flag(spec, VmAnnotations.StripSetId) ?? false,
            MapsFiles = Flag(spec, VmAnnotations.FsDax) ?? true,
            MaxVcpus = options.Kernel is null ? MostVcpus(vcpus, options.MaxVcpus, cpus.Count, hostCpus) : vcpus,
            GrowthMiB = options.Kernel is null ? GrowthFor(memory, hostMemoryMiB) : 0,
        };
    }

    private static bool? Flag(Spec spec, string annotation) => spec.Annotations?.GetValueOrDefault(annotation) switch
    {
        null => null,
        "false" => false,
        "true" => true,
        var other => throw new SandboxException($"annotation {annotation} must be true or false, it is \"{other}\""),
    };

    private static int MemoryFor(long? limit, int? without, long hostMemoryMiB)
    {
        if (limit is null or <= 0)
        {
            // The VM's memory is a file on the host.
            return without ?? (int)Math.Clamp(Math.Min(hostMemoryMiB / 2, (long)(FileSizeLimit.Hard >> 20)), LeastLimitedMemoryMiB, DefaultMemoryMiB);
        }

        // A limit above the host's memory is legal, as on the host, and then limits nothing.
        long needed = (limit.Value >> 20) + ((limit.Value & ((1 << 20) - 1)) != 0 ? 1 : 0) + OverheadMiB;
        return (int)Math.Min(Math.Max(LeastLimitedMemoryMiB, needed), Math.Min(hostMemoryMiB, int.MaxValue));
    }

    // What may be added is a file of its own on the host.
    private static int GrowthFor(int memoryMiB, long hostMemoryMiB)
    {
        long most = Math.Min(Math.Min(hostMemoryMiB, MaxMemoryMiB) - memoryMiB, (long)(FileSizeLimit.Hard >> 20));
        return (int)(Math.Max(0, most) / GrowthUnitMiB) * GrowthUnitMiB;
    }

    private static int MostVcpus(int vcpus, int? configured, int setSize, int hostCpus)
    {
        if (configured is < 1 or > MaxAllowedVcpus)
        {
            throw new SandboxException($"max-vcpus: {configured} vCPUs are not possible: 1 to {MaxAllowedVcpus}");
        }

        return Math.Max(vcpus, configured ?? Math.Min(DefaultMaxVcpus, setSize > 0 ? Math.Min(setSize, hostCpus) : hostCpus));
    }

    private static int VcpusFor(CpuResources? cpu, int? without, int setSize, int hostCpus)
    {
        if (without is { } configured && cpu?.Quota is null or <= 0)
        {
            return configured;
        }

        ulong period = cpu?.Period is null or 0 ? DefaultPeriod : cpu.Period.Value;
        ulong quota = cpu?.Quota > 0 ? (ulong)cpu.Quota.Value : period;
        ulong wanted = (quota / period) + (quota % period == 0 ? 0UL : 1UL);
        int most = Math.Min(MaxAllowedVcpus, setSize > 0 ? Math.Min(setSize, hostCpus) : hostCpus);
        return (int)Math.Clamp(wanted, 1, (ulong)Math.Max(1, most));
    }

    private static int? Annotation(Spec spec, string name)
    {
        if (spec.Annotations?.GetValueOrDefault(name) is not { } text)
        {
            return null;
        }

        return int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int value)
            ? value
            : throw new SandboxException($"annotation {name} must be a whole number, it is \"{text}\"");
    }
}
