using System.Globalization;
using MicroVm.Linux.Native;
using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Oci.Mounts;
using MicroVm.Sandbox.Vm;
using Proto = MicroVm.Protocol.Agent;

namespace MicroVm.Sandbox.Plan;

/// <summary>Resolves <c>mounts</c>: file systems of the guest's kernel, and binds, which become exports of the VM.</summary>
internal static class MountPlan
{
    // What runc lets be mounted over beneath /proc.
    private static readonly string[] AllowedInProc =
    [
        "/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime", "/proc/loadavg",
        "/proc/slabinfo", "/proc/net/dev", "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled",
    ];

    /// <summary>Resolves all mounts, in order; what binds show is added to <paramref name="sources"/>.</summary>
    /// <exception cref="SpecException">A mount is not possible.</exception>
    /// <exception cref="SandboxException">A bind's source cannot be opened.</exception>
    internal static IEnumerable<Proto.Mount> Build(
        List<Mount>? mounts, Oci.Config.Linux linux, string bundle, MountSources sources, ICollection<string> warnings)
    {
        for (int i = 0; i < (mounts?.Count ?? 0); i++)
        {
            yield return Build(mounts![i], $"mounts[{i}]", linux, bundle, sources, warnings);
        }
    }

    /// <summary>Whether a mount is a bind mount: by its type or by an option.</summary>
    internal static bool IsBind(Mount mount) =>
        mount.Type == "bind" || (mount.Options?.Exists(o => o is "bind" or "rbind") ?? false);

    private static Proto.Mount Build(
        Mount mount, string where, Oci.Config.Linux linux, string bundle, MountSources sources, ICollection<string> warnings)
    {
        string destination = mount.Destination!;
        if (!destination.StartsWith('/'))
        {
            warnings.Add($"mount destination {destination} not absolute. Support for non-absolute mount destinations will be removed in a future release.");
        }

        destination = Path.GetFullPath(Path.Combine("/", destination));
        where = $"{where} ({destination})";
        MountOptions options = MountOptions.Resolve(mount.Options, where);
        Proto.Mount plan = new()
        {
            Destination = destination,
            Flags = options.Flags,
            ClearedFlags = options.ClearedFlags,
            RecursiveSet = options.RecursiveSet,
            RecursiveClear = options.RecursiveClear,
            Data = options.Data,
            Tmpcopyup = options.TmpCopyUp,
        };
        plan.Propagation.AddRange(options.Propagation);
        if (SharedMemory.Find(mount, destination, bundle) is var (data, name))
        {
            // Between the containers of the VM; the host's page cache is not shared with it.
            plan.Kind = Proto.Mount.Types.Kind.Shared;
            plan.Type = "tmpfs";
            plan.Source = name;
            plan.Flags &= ~(Libc.MS_BIND | Libc.MS_REC);
            plan.Data = data;
        }
        else if (IsBind(mount))
        {
            Bind(plan, mount, options, where, bundle, sources);
        }
        else if (mount.Type == "overlay")
        {
            sources.AddOverlay(plan, options, where);
        }
        else
        {
            FileSystem(plan, mount, options, where);
            plan.Data = MountOwner.Map(plan.Data, linux, where);
        }

        CheckProc(plan, where);
        return plan;
    }

    private static void Bind(Proto.Mount plan, Mount mount, MountOptions options, string where, string bundle, MountSources sources)
    {
        plan.Flags |= Libc.MS_BIND;
        if ((options.Flags & Libc.MS_REMOUNT) != 0)
        {
            plan.Kind = Proto.Mount.Types.Kind.GuestBind;
            return;
        }

        if (string.IsNullOrEmpty(mount.Source))
        {
            throw new SpecException($"{where}: a bind mount needs a source");
        }

        if (options.Data.Length > 0)
        {
            // The kernel ignores a bind mount's data, and so does runc.
            plan.Data = "";
        }

        sources.Add(plan, mount, options, Path.GetFullPath(Path.Combine(bundle, mount.Source)), where);
    }

    private static void FileSystem(Proto.Mount plan, Mount mount, MountOptions options, string where)
    {
        if (string.IsNullOrEmpty(mount.Type) || mount.Type == "none")
        {
            if ((options.Flags & Libc.MS_REMOUNT) == 0 && options.Propagation.Count == 0)
            {
                throw new SpecException($"{where}: a mount needs a type");
            }

            plan.Kind = Proto.Mount.Types.Kind.GuestBind;
            return;
        }

        plan.Kind = Proto.Mount.Types.Kind.Filesystem;

        // The guest has cgroup v2 only, whatever the host has; options of v1 mean nothing to it.
        bool cgroup = mount.Type is "cgroup" or "cgroup2";
        plan.Type = cgroup ? "cgroup2" : mount.Type;
        plan.Source = string.IsNullOrEmpty(mount.Source) ? mount.Type : mount.Source;
        plan.Data = cgroup ? "" : options.Data;
    }

    private static void CheckProc(Proto.Mount plan, string where)
    {
        bool proc = plan.Kind == Proto.Mount.Types.Kind.Filesystem && plan.Type == "proc";
        if (plan.Destination == "/proc" && !proc && plan.Kind != Proto.Mount.Types.Kind.GuestBind)
        {
            throw new SpecException($"{where}: \"/proc\" cannot be mounted because it is not of type proc");
        }

        if (plan.Destination.StartsWith("/proc/", StringComparison.Ordinal) && !AllowedInProc.Contains(plan.Destination))
        {
            throw new SpecException($"{where} cannot be mounted because it is inside /proc");
        }
    }
}
