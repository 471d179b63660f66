namespace MicroVm.Agent.Rootfs;

/// <summary>Where the agent's own things are in the guest's root.</summary>
public sealed record AgentPaths
{
    /// <summary>The agent's procfs.</summary>
    public string Proc { get; init; } = "/proc";

    /// <summary>The cgroup v2 root.</summary>
    public string Cgroup { get; init; } = "/cgroup";

    /// <summary>Holds a mount point for each virtio-fs tag.</summary>
    public string FileSystems { get; init; } = "/fs";

    /// <summary>A directory for a tmpfs of the agent's own, made when first needed: exports that grow, sockets.</summary>
    public string Own { get; init; } = "/run";

    /// <summary>A directory on which a container's set-up mounts, in the container's mount namespace, a tmpfs for device nodes.</summary>
    public string Nodes { get; init; } = "/tmp";

    /// <summary>The guest's devtmpfs.</summary>
    public string Devices { get; init; } = "/dev";

    /// <summary>An empty directory on which each container, in its own mount namespace, builds its root.</summary>
    public string Staging { get; init; } = "/mnt";
}
