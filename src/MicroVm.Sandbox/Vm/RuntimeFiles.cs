namespace MicroVm.Sandbox.Vm;

/// <summary>
/// The runtime's parts: VMM, guest kernel, initramfs. They lie in <c>../libexec/microvm</c> beside the folder of the
/// executable, or where MICROVM_LIBEXEC says; kernel and initramfs can be given one by one.
/// </summary>
/// <param name="Vmm">Executable microvm-vmm.</param>
/// <param name="Kernel">Guest kernel.</param>
/// <param name="Initramfs">cpio archive whose /init is the agent.</param>
public sealed record RuntimeFiles(string Vmm, string Kernel, string Initramfs)
{
    /// <summary>Environment variable that names the folder.</summary>
    public const string FolderVariable = "MICROVM_LIBEXEC";

    /// <summary>The folder of the parts.</summary>
    public static string Folder =>
        Environment.GetEnvironmentVariable(FolderVariable) is { Length: > 0 } folder
            ? folder
            : Path.GetFullPath(Path.Combine(Path.GetDirectoryName(Environment.ProcessPath) ?? "/", "../libexec/microvm"));

    /// <summary>The parts' paths; <paramref name="kernel"/> and <paramref name="initramfs"/> override. Nothing is opened.</summary>
    public static RuntimeFiles Locate(string? kernel = null, string? initramfs = null)
    {
        string folder = Folder;
        return new RuntimeFiles(
            Path.Combine(folder, "microvm-vmm"),
            kernel ?? Path.Combine(folder, "vmlinux"),
            initramfs ?? Path.Combine(folder, "initramfs.cpio"));
    }
}
