using System.Globalization;
using MicroVm.Oci;
using MicroVm.Oci.Config;

namespace MicroVm.Sandbox.Vm;

/// <summary>
/// Annotations by which containerd's CRI plug-in, CRI-O and podman tell the containers of a pod (containerd: pkg/cri/annotations; CRI-O:
/// pkg/annotations). They set them themselves: whoever writes a pod does not.
/// </summary>
internal static class CriAnnotations
{
    /// <summary>Value of a container type: one that joins a sandbox.</summary>
    private const string Container = "container";

    /// <summary>Value of a container type: the pod's first.</summary>
    private const string Sandbox = "sandbox";

    private const string ContainerdType = "io.kubernetes.cri.container-type", Prefix = "io.kubernetes.cri.sandbox-";

    private static readonly (string Type, string Id)[] Names = [("io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"), (ContainerdType, Prefix + "id")];

    /// <summary>The sandbox that a container is to join; null when it is none's.</summary>
    internal static string? SandboxOf(IReadOnlyDictionary<string, string>? annotations)
    {
        if (annotations is { Count: > 0 })
        {
            foreach ((string type, string id) in Names)
            {
                if (annotations.GetValueOrDefault(type) == Container && annotations.GetValueOrDefault(id) is { Length: > 0 } sandbox)
                {
                    return sandbox;
                }
            }
        }

        return null;
    }

    /// <summary>What a pod as a whole may use, where its first container says so; else the container's own limits.</summary>
    /// <exception cref="SpecException">A number is malformed.</exception>
    internal static (long? Memory, CpuResources? Cpu) Size(Spec spec)
    {
        Resources? own = spec.Linux?.Resources;
        if (spec.Annotations is not { } annotations || annotations.GetValueOrDefault(ContainerdType) != Sandbox)
        {
            return (own?.Memory?.Limit, own?.Cpu);
        }

        long memory = Number(annotations, "memory"), quota = Number(annotations, "cpu-quota"), period = Number(annotations, "cpu-period");
        CpuResources? cpu = quota > 0 ? (own?.Cpu ?? new CpuResources()) with { Quota = quota, Period = period > 0 ? (ulong)period : null } : own?.Cpu;
        return (memory > 0 ? memory : own?.Memory?.Limit, cpu);
    }

    private static long Number(IReadOnlyDictionary<string, string> annotations, string name) =>
        annotations.GetValueOrDefault(Prefix + name) is not { Length: > 0 } text ? 0
        : long.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out long value) ? value
        : throw new SpecException($"annotation {Prefix}{name} must be a whole number, it is \"{text}\"");
}
