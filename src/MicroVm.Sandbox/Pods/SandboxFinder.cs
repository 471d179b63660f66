using System.Globalization;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Sandbox.Pods;

/// <summary>A VM that a container is to join.</summary>
/// <param name="Member">A container of it that lives.</param>
/// <param name="Joins">The container whose namespace is joined, by the namespace's type; ipc, uts and pid only.</param>
/// <param name="SharesNetwork">The VM's network is the container's; else it has one of its own within the guest, with a loopback interface.</param>
internal sealed record JoinTarget(ContainerState Member, IReadOnlyDictionary<string, string> Joins, bool SharesNetwork);

/// <summary>
/// Finds the VM that a bundle asks for: by paths of namespaces, which the proxies of its containers are in, or by the annotations of CRI-O,
/// podman and containerd's CRI.
/// </summary>
internal static class SandboxFinder
{
    private const string Proc = "/proc/";

    // The calling thread's: the shim's first thread is in the namespace of its containers' network.
    private const string Host = "/proc/thread-self/ns/";

    // The files of /proc/PID/ns. The network decides where there is nothing else to say.
    private static readonly (string Type, string File)[] Kinds =
    [
        (NamespaceTypes.Network, "net"), (NamespaceTypes.Ipc, "ipc"), (NamespaceTypes.Uts, "uts"), (NamespaceTypes.Pid, "pid"),
    ];

    /// <summary>The VM; null when the container has one of its own.</summary>
    /// <exception cref="SpecException">The host's own namespace is to be joined.</exception>
    /// <exception cref="SandboxException">Namespaces of several VMs are to be joined, or one that no container has.</exception>
    internal static JoinTarget? Find(Spec spec, ContainerStore store)
    {
        List<Namespace> namespaces = spec.Linux?.Namespaces ?? [];
        string? sandbox = CriAnnotations.SandboxOf(spec.Annotations);
        if (sandbox is null && !namespaces.Exists(n => !string.IsNullOrEmpty(n?.Path)))
        {
            return null;
        }

        List<ContainerState> live = [.. store.All(_ => { }).Where(s => s.Sandbox is not null && s.LiveStatus() is not (ContainerStatus.Stopped or ContainerStatus.Creating))];
        ContainerState? member = live.Find(s => s.Id == sandbox);
        string because = $"annotation names sandbox {sandbox}";
        Dictionary<string, string> joins = [];
        foreach ((string type, string file) in Kinds)
        {
            if (namespaces.Find(n => n?.Type == type)?.Path is not { Length: > 0 } path)
            {
                continue;
            }

            ContainerState? owner = Owner(path, file, live);
            if (owner is null)
            {
                RefuseUnknown(type, file, path);
                continue;
            }

            string what = $"{type} namespace {path} is container {owner.Id}'s";
            if (member is not null && member.Sandbox != owner.Sandbox)
            {
                throw new SandboxException($"linux.namespaces: {what}, but {because}, which is in another VM: a container can be in one only");
            }

            (member, because) = member is null ? (owner, what) : (member, because);
            if (type != NamespaceTypes.Network)
            {
                joins[type] = owner.Id;
            }
        }

        if (member is null)
        {
            return null;
        }

        string? network = namespaces.Find(n => n?.Type == NamespaceTypes.Network) is { } ns ? ns.Path ?? "" : null;
        if (network is { Length: > 0 } && Owner(network, "net", live) is null)
        {
            throw new SandboxException(
                $"linux.namespaces: network namespace {network} is not that of container {member.Id}, whose VM is to be joined ({because}): the containers of a VM share its network, or have none");
        }

        return new JoinTarget(member, joins, network is { Length: > 0 });
    }

    /// <summary>The container of <paramref name="live"/> to whose proxy a path leads; null when there is none.</summary>
    private static ContainerState? Owner(string path, string file, List<ContainerState> live)
    {
        // Behind containerd's shim the VMM stands for all containers of a VM: it is taken for the first.
        if (ProcessOf(path, file) is { } pid && (live.Find(s => s.Init.Pid == pid) ?? live.Where(s => s.Vmm?.Pid == pid).MinBy(s => s.Created)) is { } named)
        {
            return named;
        }

        // What the proxies do not have of their own is the host's.
        return FileIdentity.Find(path) is { } identity && identity != FileIdentity.Find($"{Host}{file}")
            ? live.Find(s => FileIdentity.Find(string.Create(CultureInfo.InvariantCulture, $"{Proc}{s.Init.Pid}/ns/{file}")) == identity)
            : null;
    }

    private static void RefuseUnknown(string type, string file, string path)
    {
        if (type == NamespaceTypes.Network)
        {
            // It is the VM's, if it is not the host's; which is seen when the VM is connected to it.
            return;
        }

        if (FileIdentity.Find(path) is not { } identity)
        {
            throw new SandboxException($"linux.namespaces: {type} namespace {path}: {LinuxException.Text(Check.LastErrno).ToLowerInvariant()}");
        }

        if (identity == FileIdentity.Find($"{Host}{file}"))
        {
            throw SpecException.Unsupported($"linux.namespaces: path {path} of type {type}", "it is the host's own namespace, or that of a process which is no container's: it cannot be joined from inside a VM");
        }

        // A namespace that an engine made for a pod whose first container this is: the guest's own stands for it.
        if (type == NamespaceTypes.Pid)
        {
            throw SpecException.Unsupported($"linux.namespaces: path {path} of type {type}", "it is no container's, and processes of the host cannot be seen from inside a VM");
        }
    }

    /// <summary>PID of /proc/PID/ns/FILE, or of /proc/PID/task/TID/ns/FILE.</summary>
    private static int? ProcessOf(string path, string file) => Path.GetFullPath(path).Split('/', StringSplitOptions.RemoveEmptyEntries) switch
    {
        ["proc", var pid, "ns", var f] when f == file => Number(pid),
        ["proc", var pid, "task", _, "ns", var f] when f == file => Number(pid),
        _ => null,
    };

    private static int? Number(string text) => int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int number) ? number : null;
}
