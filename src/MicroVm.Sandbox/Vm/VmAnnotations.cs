using MicroVm.Oci;

namespace MicroVm.Sandbox.Vm;

/// <summary>
/// Annotations of a bundle that change what its container costs the host or how it is isolated. Whoever writes bundles (the author of a
/// pod) is not always who pays for the host, so each has an effect only where the caller of this runtime allows it.
/// </summary>
public static class VmAnnotations
{
    /// <summary>The memory in MiB.</summary>
    public const string Memory = "dev.microvm.memory";

    /// <summary>The number of vCPUs.</summary>
    public const string Vcpus = "dev.microvm.vcpus";

    /// <summary>The CPU template.</summary>
    public const string CpuTemplate = "dev.microvm.cpu-template";

    /// <summary>More of the kernel's command line.</summary>
    public const string KernelArguments = "dev.microvm.kernel-args";

    /// <summary>
    /// "true" or "false": files of the container and its volumes get no set-id bits and no capabilities. It takes something away, so it
    /// needs nobody's leave.
    /// </summary>
    public const string StripSetId = "dev.microvm.strip-set-id";

    /// <summary>
    /// "true" (the default) or "false": shared mappings of files are the host's pages, or the guest's own copies. It changes nothing for
    /// the host but the addresses that a VMM takes, so it needs nobody's leave.
    /// </summary>
    public const string FsDax = "dev.microvm.fs-dax";

    /// <summary>"true": the container may connect to the host's Unix sockets that its bind mounts show; as their option <c>host-sockets</c>.</summary>
    public const string HostSockets = "dev.microvm.host-sockets";

    /// <summary>Stands for all of them in a list of allowed ones.</summary>
    public const string Every = "*";

    /// <summary>All that need leave: <c>potentiallyUnsafeConfigAnnotations</c> of features.md.</summary>
    public static IReadOnlyList<string> All { get; } = [CpuTemplate, HostSockets, KernelArguments, Memory, Vcpus];

    /// <summary>Refuses annotations that are not allowed, so that no container runs in another VM than its bundle asks for.</summary>
    /// <param name="annotations">The bundle's.</param>
    /// <param name="allowed">Names, separated by commas; null allows none.</param>
    /// <exception cref="SpecException">One is not allowed.</exception>
    internal static void Check(IReadOnlyDictionary<string, string>? annotations, string? allowed)
    {
        if (annotations is null or { Count: 0 })
        {
            return;
        }

        string[] names = allowed?.Split(',', StringSplitOptions.TrimEntries) ?? [];
        foreach (string name in All)
        {
            if (annotations.ContainsKey(name) && !names.Contains(name) && !names.Contains(Every))
            {
                throw new SpecException(
                    $"annotation {name} is not allowed on this host: it sizes or shapes the VM; allow it by --allow-annotations {name} before the command, or allowed-annotations in {Configuration.RuntimeConfiguration.DefaultPath}");
            }
        }
    }
}
