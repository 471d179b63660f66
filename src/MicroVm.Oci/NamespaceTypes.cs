namespace MicroVm.Oci;

/// <summary>The runtime specification's names of namespaces.</summary>
public static class NamespaceTypes
{
#pragma warning disable CS1591
    public const string Pid = "pid";
    public const string Network = "network";
    public const string Mount = "mount";
    public const string Ipc = "ipc";
    public const string Uts = "uts";
    public const string User = "user";
    public const string Cgroup = "cgroup";
    public const string Time = "time";
#pragma warning restore CS1591

    /// <summary>All of them, sorted.</summary>
    public static readonly IReadOnlyList<string> All = [Cgroup, Ipc, Mount, Network, Pid, Time, User, Uts];
}
