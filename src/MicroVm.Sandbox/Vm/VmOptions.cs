namespace MicroVm.Sandbox.Vm;

/// <summary>What the caller asks of the VM; null leaves it to the bundle's annotations and limits.</summary>
public sealed record VmOptions
{
    /// <summary>Guest memory in MiB.</summary>
    public int? MemoryMiB { get; init; }

    /// <summary>Number of vCPUs.</summary>
    public int? Vcpus { get; init; }

    /// <summary>Guest kernel.</summary>
    public string? Kernel { get; init; }

    /// <summary>Initial RAM file system.</summary>
    public string? Initramfs { get; init; }

    /// <summary>Added to the kernel's command line.</summary>
    public string? KernelArguments { get; init; }

    /// <summary>Where the serial console is appended.</summary>
    public string? ConsoleLog { get; init; }
}
