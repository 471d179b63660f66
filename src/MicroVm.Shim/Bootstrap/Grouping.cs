using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Sandbox;
using MicroVm.Sandbox.Pods;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Shim.Bootstrap;

/// <summary>To which shim a container belongs: containers of one VM have one shim.</summary>
/// <param name="Group">The VM's first container: the pod's sandbox, or the container itself.</param>
/// <param name="Joins">The container is a further one of the VM: there is a shim already.</param>
internal readonly record struct Grouping(string Group, bool Joins)
{
    /// <summary>By the annotations of a pod (<see cref="CriAnnotations"/>), else by the containers whose namespaces the bundle names.</summary>
    /// <param name="spec">The bundle's configuration.</param>
    /// <param name="id">The container's id.</param>
    /// <param name="root">Folder of the states; it need not exist.</param>
    /// <exception cref="SpecException">The sandbox's id is malformed.</exception>
    internal static Grouping Of(Spec spec, string id, string root)
    {
        if (CriAnnotations.SandboxOf(spec.Annotations) is { } sandbox)
        {
            ContainerId.Check(sandbox);
            return new Grouping(sandbox, Joins: sandbox != id);
        }

        return Directory.Exists(root) && First(spec, new ContainerStore(root)) is { } first ? new Grouping(first, Joins: true) : new Grouping(id, Joins: false);
    }

    /// <summary>The oldest container of the VM that is to be joined; null when there is none, or when creation is to say what is wrong.</summary>
    private static string? First(Spec spec, ContainerStore store)
    {
        try
        {
            return SandboxFinder.Find(spec, store)?.Member.Sandbox is { } shim ? store.All(_ => { }).Where(s => s.Sandbox == shim).MinBy(s => s.Created)?.Id : null;
        }
        catch (Exception e) when (e is SandboxException or SpecException)
        {
            return null;
        }
    }
}
