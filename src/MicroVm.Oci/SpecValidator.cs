using MicroVm.Oci.Cgroups;
using MicroVm.Oci.Config;

namespace MicroVm.Oci;

/// <summary>
/// Checks a specification as runc does (in runc's words where it has them), and refuses by name what a container in a VM
/// cannot have. What it passes can be resolved.
/// </summary>
public static class SpecValidator
{
    /// <summary>Why no mount of a container can be ID-mapped.</summary>
    internal const string IdMapReason = "the guest kernel's virtio-fs and tmpfs cannot be ID-mapped";

    private const string SupportedMajor = "1.";

    /// <summary>Namespaces whose absence asks for the host's, which a VM cannot share: what is asked for, and what to do instead.</summary>
    private static readonly (string Type, string What, string Instead)[] HostNamespaces =
    [
        (NamespaceTypes.Pid, "the host's process ids", "a VM has processes of its own: leave out --pid=host (docker, podman) or hostPID (Kubernetes), or run this container with runc"),
        (NamespaceTypes.Ipc, "the host's shared memory and message queues", "a VM has its own: leave out --ipc=host (docker, podman) or hostIPC (Kubernetes); --shm-size gives more of /dev/shm"),
        (NamespaceTypes.Uts, "the host's name", "a VM has a name of its own: leave out --uts=host (docker, podman) and give the name with --hostname"),
    ];

    /// <summary>Checks <paramref name="spec"/> of the bundle at <paramref name="bundle"/> (an absolute path).</summary>
    /// <returns>The absolute path of the root file system.</returns>
    /// <exception cref="SpecException">Something is missing, malformed, contradictory or not supported.</exception>
    public static string Validate(Spec spec, string bundle)
    {
        ArgumentNullException.ThrowIfNull(spec);
        if (string.IsNullOrEmpty(spec.OciVersion))
        {
            throw new SpecException("ociVersion must be specified");
        }

        if (!spec.OciVersion.StartsWith(SupportedMajor, StringComparison.Ordinal))
        {
            throw new SpecException($"ociVersion {spec.OciVersion} is not supported: this runtime implements the runtime specification 1.x");
        }

        ValidateProcess(spec.Process);
        if (string.IsNullOrEmpty(spec.Root?.Path))
        {
            throw new SpecException("root must be specified");
        }

        string rootfs = Path.GetFullPath(Path.Combine(bundle, spec.Root.Path));
        if (!Directory.Exists(rootfs))
        {
            throw new SpecException(File.Exists(rootfs)
                ? $"invalid rootfs: {rootfs} is not a directory"
                : $"invalid rootfs: stat {rootfs}: no such file or directory");
        }

        Config.Linux linux = spec.Linux ?? new Config.Linux();
        ValidateNamespaces(spec, linux);
        ValidateMounts(spec.Mounts);
        RefuseUnsupported(linux);
        return rootfs;
    }

    /// <summary>Checks a process, the container's or one of <c>exec</c>.</summary>
    /// <exception cref="SpecException">As for <see cref="Validate"/>.</exception>
    public static void ValidateProcess(Process? process)
    {
        if (process is null)
        {
            throw new SpecException("process property must not be empty");
        }

        if (string.IsNullOrEmpty(process.Cwd))
        {
            throw new SpecException("Cwd property must not be empty");
        }

        if (!process.Cwd.StartsWith('/'))
        {
            throw new SpecException("Cwd must be an absolute path");
        }

        if (process.Args is null or { Count: 0 })
        {
            throw new SpecException("args must not be empty");
        }

        if (process.Args.Contains(null!) || (process.Env?.Contains(null!) ?? false))
        {
            throw new SpecException("process.args and process.env must hold strings only, not null");
        }

        if (process.Env?.Find(e => e.IndexOf('=', StringComparison.Ordinal) <= 0) is { } variable)
        {
            throw new SpecException($"unable to start container process: invalid environment variable: \"{variable}\"");
        }

        if (process.User?.Umask > 0b111_111_111)
        {
            throw new SpecException($"process.user.umask {process.User.Umask} is out of range: 0 to 511");
        }

        if (process.OomScoreAdj is < -1000 or > 1000)
        {
            throw new SpecException($"process.oomScoreAdj {process.OomScoreAdj} is out of range: -1000 to 1000");
        }

        if (!string.IsNullOrEmpty(process.SelinuxLabel))
        {
            throw SpecException.Unsupported("process.selinuxLabel", GuestKernel.NoSelinux);
        }

        if (process.ApparmorProfile is not (null or "" or "unconfined"))
        {
            throw SpecException.Unsupported("process.apparmorProfile", GuestKernel.NoAppArmor);
        }

        _ = CpuSet.Parse(process.ExecCPUAffinity?.Initial, "process.execCPUAffinity.initial");
        _ = CpuSet.Parse(process.ExecCPUAffinity?.Final, "process.execCPUAffinity.final");
    }

    /// <summary>Whether the container has a namespace of its own of a type.</summary>
    public static bool HasNamespace(Config.Linux? linux, string type) =>
        linux?.Namespaces?.Exists(n => n?.Type == type) ?? false;

    private static void ValidateNamespaces(Spec spec, Config.Linux linux)
    {
        HashSet<string> seen = [];
        foreach (Namespace ns in linux.Namespaces ?? [])
        {
            string type = ns?.Type ?? "";
            if (!NamespaceTypes.All.Contains(type))
            {
                throw new SpecException($"namespace \"{type}\" does not exist");
            }

            if (!seen.Add(type))
            {
                throw new SpecException($"malformed spec file: duplicated ns \"{type}\"");
            }

            // A network namespace that a caller has prepared is connected to the VM; the others may be those of another container in it.
            if (!string.IsNullOrEmpty(ns!.Path) && type is not (NamespaceTypes.Network or NamespaceTypes.Ipc or NamespaceTypes.Uts or NamespaceTypes.Pid))
            {
                throw SpecException.Unsupported($"linux.namespaces: path {ns.Path} of type {type}", "a namespace of the host cannot be joined from inside a VM");
            }
        }

        if (!seen.Contains(NamespaceTypes.Mount))
        {
            throw new SpecException("linux.namespaces: a container needs a mount namespace of its own; add {\"type\": \"mount\"}");
        }

        if (!string.IsNullOrEmpty(spec.Hostname) && !seen.Contains(NamespaceTypes.Uts))
        {
            throw new SpecException("unable to set hostname without a private UTS namespace");
        }

        if (!string.IsNullOrEmpty(spec.Domainname) && !seen.Contains(NamespaceTypes.Uts))
        {
            throw new SpecException("unable to set domainname without a private UTS namespace");
        }

        bool mapped = linux.UidMappings is { Count: > 0 } || linux.GidMappings is { Count: > 0 };
        if (mapped && !seen.Contains(NamespaceTypes.User))
        {
            throw new SpecException("user namespace mappings specified, but USER namespace isn't enabled in the container");
        }

        if (seen.Contains(NamespaceTypes.User) && (linux.UidMappings is not { Count: > 0 } || linux.GidMappings is not { Count: > 0 }))
        {
            throw new SpecException("User namespaces enabled, but no uid or no gid mappings found.");
        }

        if (linux.TimeOffsets is { Count: > 0 } && !seen.Contains(NamespaceTypes.Time))
        {
            throw new SpecException("time namespace offsets specified, but time namespace isn't enabled in the container");
        }

        foreach (string clock in linux.TimeOffsets?.Keys ?? Enumerable.Empty<string>())
        {
            if (clock is not ("monotonic" or "boottime"))
            {
                throw new SpecException($"linux.timeOffsets: clock \"{clock}\" does not exist: monotonic or boottime");
            }
        }

        foreach ((string type, string what, string instead) in HostNamespaces)
        {
            if (!seen.Contains(type))
            {
                throw SpecException.Unsupported($"{what} (linux.namespaces without one of type {type})", instead);
            }
        }
    }

    private static void ValidateMounts(List<Mount>? mounts)
    {
        for (int i = 0; i < (mounts?.Count ?? 0); i++)
        {
            Mount? mount = mounts![i];
            if (string.IsNullOrEmpty(mount?.Destination))
            {
                throw new SpecException($"mounts[{i}].destination must not be empty");
            }

            if (mount.UidMappings is { Count: > 0 } || mount.GidMappings is { Count: > 0 })
            {
                throw SpecException.Unsupported($"mounts[{i}].uidMappings", IdMapReason);
            }
        }
    }

    private static void RefuseUnsupported(Config.Linux linux)
    {
        if (!string.IsNullOrEmpty(linux.MountLabel))
        {
            throw SpecException.Unsupported("linux.mountLabel", GuestKernel.NoSelinux);
        }

        if (linux.IntelRdt is { ValueKind: not System.Text.Json.JsonValueKind.Null })
        {
            throw SpecException.Unsupported("linux.intelRdt", "cache and bandwidth allocation belong to the host");
        }

        if (linux.MemoryPolicy is { ValueKind: not System.Text.Json.JsonValueKind.Null })
        {
            throw SpecException.Unsupported("linux.memoryPolicy", "the host's memory nodes are not seen from inside a VM");
        }

        if (linux.NetDevices is { Count: > 0 })
        {
            throw SpecException.Unsupported("linux.netDevices", "a host network device cannot be moved into a VM");
        }
    }
}
