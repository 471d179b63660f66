using MicroVm.Agent.Rootfs;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Linux.Tracing;
using MicroVm.Protocol.Agent;

namespace MicroVm.Agent.Containers;

/// <summary>What setting up containers and processes needs of the agent.</summary>
/// <param name="Paths">Where things are in the guest's root.</param>
/// <param name="FileSystems">The virtio-fs mounts.</param>
/// <param name="Processes">The agent's children.</param>
/// <param name="Proc">The agent's procfs, O_PATH, for threads that see another root.</param>
public sealed record SetupContext(AgentPaths Paths, FileSystems FileSystems, ProcessTable Processes, SafeFd Proc)
{
    /// <summary>The steps of the agent.</summary>
    public StepRecorder Trace { get; init; } = StepRecorder.Off;
}

/// <summary>Namespace kinds as clone(2)'s flags.</summary>
public static class NamespaceFlags
{
    /// <summary>
    /// The kinds that a child joins by itself: a thread cannot join a user or time namespace, and one in another cgroup
    /// namespace cannot clone into a cgroup outside of it; a child is seen in its PID namespace from its first moment, in which it
    /// has the agent's memory.
    /// </summary>
    public const int JoinedByChild = Libc.CLONE_NEWUSER | Libc.CLONE_NEWTIME | Libc.CLONE_NEWCGROUP | Libc.CLONE_NEWPID;

    /// <summary>The CLONE_NEW* flag of a kind.</summary>
    /// <exception cref="SetupException">The kind is not known.</exception>
    public static int Of(Namespace.Types.Kind kind) => kind switch
    {
        Namespace.Types.Kind.Mount => Libc.CLONE_NEWNS,
        Namespace.Types.Kind.Pid => Libc.CLONE_NEWPID,
        Namespace.Types.Kind.Network => Libc.CLONE_NEWNET,
        Namespace.Types.Kind.Ipc => Libc.CLONE_NEWIPC,
        Namespace.Types.Kind.Uts => Libc.CLONE_NEWUTS,
        Namespace.Types.Kind.User => Libc.CLONE_NEWUSER,
        Namespace.Types.Kind.Cgroup => Libc.CLONE_NEWCGROUP,
        Namespace.Types.Kind.Time => Libc.CLONE_NEWTIME,
        _ => throw new SetupException($"namespace kind {(int)kind} is not known to this agent"),
    };

    /// <summary>The flags of some namespaces, together.</summary>
    /// <exception cref="SetupException">A kind is not known.</exception>
    public static int Of(IEnumerable<Namespace> namespaces)
    {
        ArgumentNullException.ThrowIfNull(namespaces);
        return namespaces.Aggregate(0, (flags, ns) => flags | Of(ns.Kind));
    }

    /// <summary>
    /// Moves the calling thread into the namespaces of a container's init, but those of <see cref="JoinedByChild"/>; its
    /// root and working directory become its own.
    /// </summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public static void Join(SafeFd init, int flags)
    {
        ArgumentNullException.ThrowIfNull(init);
        Check.Result(Libc.unshare(Libc.CLONE_FS), "unshare(CLONE_FS)");
        Check.Result(Libc.setns(init.Value, flags & ~JoinedByChild), "setns to the container's namespaces");
    }

    /// <summary>A container's id as an id of the guest, through the container's mappings; itself without a user namespace.</summary>
    public static uint Map(IReadOnlyList<IdMapping> mappings, uint id)
    {
        ArgumentNullException.ThrowIfNull(mappings);
        foreach (IdMapping m in mappings)
        {
            if (id >= m.ContainerId && id - m.ContainerId < m.Size)
            {
                return m.HostId + (id - m.ContainerId);
            }
        }

        return id;
    }
}
