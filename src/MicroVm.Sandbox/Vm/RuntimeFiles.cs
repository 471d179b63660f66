namespace MicroVm.Sandbox.Vm;

/// <summary>
/// The runtime's parts: VMM, guest kernel, the agent's image. They lie in <c>../libexec/microvm</c> beside the folder of the
/// executable, or where MICROVM_LIBEXEC says; another kernel or an initramfs can be given.
/// </summary>
/// <param name="Vmm">Executable microvm-vmm.</param>
/// <param name="Kernel">Guest kernel.</param>
/// <param name="AgentImage">File system image whose /init is the agent; all VMs share its pages.</param>
public sealed record RuntimeFiles(string Vmm, string Kernel, string AgentImage)
{
    /// <summary>An initial RAM file system whose /init is to run in place of <see cref="AgentImage"/>; null for none.</summary>
    public string? Initramfs { get; init; }

    /// <summary>The VM gets copies of its own of kernel and image, so that it shares none of their pages with other VMs.</summary>
    public bool PrivateImages { get; init; }

    /// <summary>Host memory in MiB that such copies take at most: of the image and both kernels, until the VMM has taken one.</summary>
    public int CopiesMiB => PrivateImages ? MostCopiesMiB : 0;

    /// <summary>The guest kernel for hosts whose KVM is PVM; null when it is not installed or another kernel was asked for.</summary>
    public string? PvmKernel { get; init; }

    /// <summary>Another kernel was asked for than the one that is installed with the runtime.</summary>
    public bool HasOwnKernel { get; init; }

    /// <summary>True where <see cref="PvmKernel"/> alone is installed: <c>make run</c> builds one kernel, the host's own.</summary>
    public bool HasOnlyPvmKernel => PvmKernel is not null && !File.Exists(Kernel);

    private const int MostCopiesMiB = 64;

    /// <summary>The file name of <see cref="PvmKernel"/>.</summary>
    public const string PvmKernelName = "vmlinux-pvm";

    /// <summary>Environment variable that names the folder.</summary>
    public const string FolderVariable = "MICROVM_LIBEXEC";

    /// <summary>The folder of the parts.</summary>
    public static string Folder =>
        Environment.GetEnvironmentVariable(FolderVariable) is { Length: > 0 } folder
            ? folder
            : Path.GetFullPath(Path.Combine(Path.GetDirectoryName(Environment.ProcessPath) ?? "/", "../libexec/microvm"));

    /// <summary>The parts' paths; <paramref name="kernel"/> overrides. Nothing is opened.</summary>
    public static RuntimeFiles Locate(string? kernel = null, string? initramfs = null)
    {
        string folder = Folder;
        string pvmKernel = Path.Combine(folder, PvmKernelName);
        return new RuntimeFiles(
            Path.Combine(folder, "microvm-vmm"),
            kernel ?? Path.Combine(folder, "vmlinux"),
            Path.Combine(folder, "agent.img"))
        {
            Initramfs = initramfs,
            HasOwnKernel = kernel is not null,
            PvmKernel = kernel is null && File.Exists(pvmKernel) ? pvmKernel : null,
        };
    }
}
