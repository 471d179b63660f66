using System.Globalization;
using Google.Protobuf;
using MicroVm.Oci;
using MicroVm.Oci.Cgroups;
using MicroVm.Oci.Config;
using MicroVm.Oci.Devices;
using MicroVm.Oci.Mounts;
using MicroVm.Oci.Processes;
using MicroVm.Sandbox.Pods;
using MicroVm.Sandbox.Vm;
using HostSocket = MicroVm.Sandbox.Vm.HostSocket;
using Proto = MicroVm.Protocol.Agent;

namespace MicroVm.Sandbox.Plan;

/// <summary>Resolves a validated specification to a <see cref="ContainerPlan"/>.</summary>
internal static class PlanBuilder
{
    /// <summary>Builds the plan.</summary>
    /// <param name="spec">A specification that <see cref="SpecValidator"/> passed.</param>
    /// <param name="id">The container's id.</param>
    /// <param name="bundle">Absolute path of the bundle: relative bind sources are below it.</param>
    /// <param name="rootfs">Absolute path of the root file system.</param>
    /// <param name="warnings">Takes a line for everything that is left out.</param>
    /// <param name="target">The VM that the container joins; null for one of its own.</param>
    /// <param name="prefix">Begins the names of its exports, which no other container of the VM may have.</param>
    /// <exception cref="SpecException">Something cannot be resolved.</exception>
    /// <exception cref="SandboxException">A host path cannot be opened.</exception>
    internal static ContainerPlan Build(Spec spec, string id, string bundle, string rootfs, ICollection<string> warnings, JoinTarget? target = null, string prefix = "")
    {
        MountSources sources = new(spec, prefix, target is null ? HostSocket.FirstPort : 0);
        try
        {
            sources.Exports.Add(Export.Open(prefix + Export.Rootfs, rootfs, ReadOnlyRoot.Suffices(spec, rootfs) && ReadinessSocket.OfCaller is null, "rootfs"));
            Oci.Config.Linux linux = spec.Linux ?? new Oci.Config.Linux();
            Proto.ContainerSpec plan = new()
            {
                Root = new Proto.Root
                {
                    FsTag = Export.Tag,
                    FsPath = sources.Exports[0].GuestPath,
                    ReadOnly = spec.Root?.Readonly ?? false,
                    Propagation = MountOptions.RootfsPropagation(linux.RootfsPropagation),
                },
                Hostname = spec.Hostname ?? "",
                Domainname = spec.Domainname ?? "",
                Process = ProcessPlan.Build(spec.Process!, linux, warnings),
                Cgroup = Cgroup(linux, spec.Mounts, id, warnings),
            };
            HomeDirectory.Add(plan.Process, rootfs);
            Namespaces(plan, linux, target);
            plan.Mounts.AddRange(MountPlan.Build(spec.Mounts, linux, bundle, sources, warnings));
            ReadinessSocket.AddTo(plan);
            plan.Devices.AddRange(Devices(linux, spec.Mounts));
            plan.Sysctls.AddRange(Sysctls.Resolve(linux.Sysctl, t => SpecValidator.HasNamespace(linux, t))
                .Select(s => new Proto.Sysctl { Path = s.Path, Value = MountOwner.MapGroupRange(s, linux) }));
            OpenFiles(plan);
            plan.MaskedPaths.AddRange(Absolute(linux.MaskedPaths, "linux.maskedPaths"));
            plan.ReadonlyPaths.AddRange(Absolute(linux.ReadonlyPaths, "linux.readonlyPaths"));
            HookPlan.Add(plan, spec, id, bundle, sources.Exports, prefix);
            return new ContainerPlan { Spec = plan, Sources = sources };
        }
        catch
        {
            sources.Dispose();
            throw;
        }
    }

    private static void Namespaces(Proto.ContainerSpec plan, Oci.Config.Linux linux, JoinTarget? target)
    {
        foreach (Namespace ns in linux.Namespaces ?? [])
        {
            // The VM's own network namespace is its containers': it has the VM's interfaces.
            if (ns.Type != NamespaceTypes.Network || target is { SharesNetwork: false })
            {
                plan.Namespaces.Add(new Proto.Namespace { Kind = Kind(ns.Type!), JoinContainerId = target?.Joins.GetValueOrDefault(ns.Type!) ?? "" });
            }
        }

        plan.UidMappings.AddRange(Mappings(linux.UidMappings, "linux.uidMappings"));
        plan.GidMappings.AddRange(Mappings(linux.GidMappings, "linux.gidMappings"));
        plan.TimeOffsets.AddRange((linux.TimeOffsets ?? []).Select(o => new Proto.TimeOffset
        {
            Clock = o.Key,
            Seconds = o.Value?.Secs ?? 0,
            Nanoseconds = o.Value?.Nanosecs ?? 0,
        }));
    }

    /// <summary>A limit on open files above what the guest's kernel grants by default is what the host's grants: callers ask for theirs.</summary>
    private static void OpenFiles(Proto.ContainerSpec plan)
    {
        if (plan.Process.Rlimits.FirstOrDefault(l => l.Resource == ResourceLimit.OpenFiles)?.Hard is { } most and > ResourceLimit.DefaultMostOpenFiles and <= ResourceLimit.MaxMostOpenFiles)
        {
            plan.Sysctls.Add(new Proto.Sysctl { Path = "fs/nr_open", Value = most.ToString(CultureInfo.InvariantCulture) });
        }
    }

    private static Proto.Namespace.Types.Kind Kind(string type) => type switch
    {
        NamespaceTypes.Mount => Proto.Namespace.Types.Kind.Mount,
        NamespaceTypes.Pid => Proto.Namespace.Types.Kind.Pid,
        NamespaceTypes.Ipc => Proto.Namespace.Types.Kind.Ipc,
        NamespaceTypes.Uts => Proto.Namespace.Types.Kind.Uts,
        NamespaceTypes.User => Proto.Namespace.Types.Kind.User,
        NamespaceTypes.Cgroup => Proto.Namespace.Types.Kind.Cgroup,
        NamespaceTypes.Network => Proto.Namespace.Types.Kind.Network,
        _ => Proto.Namespace.Types.Kind.Time,
    };

    private static IEnumerable<Proto.IdMapping> Mappings(List<IdMapping>? mappings, string where) =>
        (mappings ?? []).Select(m => m?.Size is > 0
            ? new Proto.IdMapping { ContainerId = m.ContainerID ?? 0, HostId = m.HostID ?? 0, Size = m.Size.Value }
            : throw new SpecException($"{where}: a mapping needs a size of at least 1"));

    private static Proto.Cgroup Cgroup(Oci.Config.Linux linux, List<Mount>? mounts, string id, ICollection<string> warnings)
    {
        List<DeviceAccessRule> rules = DeviceRules.Resolve(linux.Resources?.Devices);
        Proto.Cgroup cgroup = new()
        {
            Path = CgroupPath(linux.CgroupsPath, id),
            DeviceFilter = UnsafeByteOperations.UnsafeWrap(DeviceFilterCompiler.Compile(rules)),
        };
        // config-linux.md, "Cgroup ownership": root of a user namespace owns its cgroup when it can see and write it.
        if (SpecValidator.HasNamespace(linux, NamespaceTypes.User) && SpecValidator.HasNamespace(linux, NamespaceTypes.Cgroup)
            && (mounts?.Exists(m => m.Type is "cgroup" or "cgroup2" && !(m.Options?.Contains("ro") ?? false)) ?? false)
            && MountOwner.Find(linux.UidMappings, 0) is { } owner)
        {
            cgroup.Owner = owner;
        }

        cgroup.Settings.AddRange(CgroupPlan.Settings(CgroupSettings.FromResources(linux.Resources, warnings)));
        return cgroup;
    }

    /// <summary>Beneath the guest's root: the bundle's path, except for systemd's form (slice:prefix:name), else the id.</summary>
    private static string CgroupPath(string? path, string id)
    {
        if (string.IsNullOrEmpty(path) || path.Contains(':'))
        {
            return id;
        }

        string clean = Path.GetFullPath(Path.Combine("/", path)).Trim('/');
        return clean.Length == 0 ? id : clean;
    }

    private static IEnumerable<Proto.Device> Devices(Oci.Config.Linux linux, List<Mount>? mounts)
    {
        // As runc: a /dev from the host is taken as it is.
        bool own = mounts?.Exists(m => MountPlan.IsBind(m) && m.Destination!.TrimEnd('/') == "/dev") ?? false;
        List<DeviceNode> nodes = DeviceNodes.Resolve(linux.Devices);
        return own ? [] : nodes.Select(n => new Proto.Device
        {
            Path = n.Path,
            Type = n.Type,
            Major = n.Major,
            Minor = n.Minor,
            Mode = n.Mode,
            Uid = n.Uid,
            Gid = n.Gid,
        });
    }

    private static IEnumerable<string> Absolute(List<string>? paths, string where) =>
        (paths ?? []).Select(p => p is ['/', ..] ? p : throw new SpecException($"{where}: \"{p}\" is not an absolute path"));
}
