using MicroVm.Oci;

namespace MicroVm.Shim.Bootstrap;

/// <summary>To which shim a container belongs, by the annotations of containerd's CRI plug-in.</summary>
/// <param name="Group">The pod's sandbox, or the container itself.</param>
/// <param name="Joins">The container is a further one of the pod: its sandbox has a shim already.</param>
internal readonly record struct Grouping(string Group, bool Joins)
{
    private const string Kind = "io.kubernetes.cri.container-type";
    private const string Sandbox = "io.kubernetes.cri.sandbox-id";

    /// <summary>By the bundle's annotations.</summary>
    /// <exception cref="SpecException">The sandbox's id is malformed.</exception>
    internal static Grouping Of(IReadOnlyDictionary<string, string>? annotations, string id)
    {
        if (annotations?.GetValueOrDefault(Kind) != "container" || annotations.GetValueOrDefault(Sandbox) is not { Length: > 0 } sandbox)
        {
            return new Grouping(id, Joins: false);
        }

        ContainerId.Check(sandbox);
        return new Grouping(sandbox, Joins: sandbox != id);
    }
}
