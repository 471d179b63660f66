using System.Globalization;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Oci.Mounts;
using MicroVm.Sandbox.Vm;
using Proto = MicroVm.Protocol.Agent;

namespace MicroVm.Sandbox.Plan;

/// <summary>
/// What of the host bind mounts show to the VM. Directories and regular files become exports; a device node is the guest's own
/// of that number; a socket is reached through a relay, and a FIFO opened on the host, where the bundle allows it.
/// </summary>
internal sealed class MountSources : IDisposable
{
    /// <summary>Mount option that lets the container connect to the host's Unix sockets: the source itself, or those below it.</summary>
    internal const string SocketsOption = "host-sockets";

    private readonly HostMounts _mounts = new();
    private readonly bool _allSockets;
    private readonly string? _rootfsPropagation;

    // A bind mount has its export, what ContainerMountNamespace shows of it, a copy of each while the VMM is started, and perhaps a tree
    // that follows the host's mounts.
    private const ulong DescriptorsPerMount = 5, OtherDescriptors = 512;

    private readonly string _prefix;
    private readonly uint _firstPort;

    /// <summary>For the mounts of a bundle.</summary>
    /// <param name="spec">Its configuration.</param>
    /// <param name="prefix">Begins the names of its exports.</param>
    /// <param name="firstPort">The port of its first socket.</param>
    internal MountSources(Spec spec, string prefix, uint firstPort)
    {
        (_prefix, _firstPort) = (prefix, firstPort);
        OpenFileLimit.Need(((ulong)(spec.Mounts?.Count ?? 0) * DescriptorsPerMount) + OtherDescriptors);
        _rootfsPropagation = spec.Linux?.RootfsPropagation;
        _allSockets = spec.Annotations?.GetValueOrDefault(VmAnnotations.HostSockets) switch
        {
            null or "false" => false,
            "true" => true,
            { } other => throw new SpecException($"annotation {VmAnnotations.HostSockets} must be \"true\" or \"false\", it is \"{other}\""),
        };
    }

    /// <summary>The exports, the root file system first.</summary>
    internal List<Export> Exports { get; } = [];

    /// <summary>The sockets that are mounted by themselves.</summary>
    internal List<HostSocket> Sockets { get; } = [];

    /// <summary>Opens the source of a bind mount and completes its plan.</summary>
    /// <param name="plan">The mount, with destination and flags.</param>
    /// <param name="mount">As the bundle has it.</param>
    /// <param name="options">Its options.</param>
    /// <param name="path">The source's absolute path.</param>
    /// <param name="where">What messages call the mount.</param>
    /// <exception cref="SandboxException">It does not exist, or cannot be shown to a VM.</exception>
    internal void Add(Proto.Mount plan, Mount mount, MountOptions options, string path, string where)
    {
        string what = $"{where}: source";
        using SafeFd file = Export.OpenPath(path, what);
        Libc.statx_t stat = FileType.Describe(file, path);
        uint type = stat.stx_mode & Libc.S_IFMT;
        switch (type)
        {
            case Libc.S_IFDIR or Libc.S_IFREG:
                AddExport(plan, mount, options, file, stat, $"{what} {path}");
                plan.HostSource = path;
                break;
            case Libc.S_IFCHR or Libc.S_IFBLK:
                AddDevice(plan, stat, path);
                break;
            case Libc.S_IFSOCK:
                AddSocket(plan, mount, file, stat, path, what);
                break;
            case Libc.S_IFIFO when ShowsSockets(mount):
                AddExport(plan, mount, options, file, stat, $"{what} {path}");
                plan.HostSource = path;
                break;
            default:
                throw new SandboxException($"{what} {path} is a FIFO, and a VM reaches FIFOs of the host only where a mount asks for it: add the mount option \"{SocketsOption}\" or the annotation {VmAnnotations.HostSockets}=true");
        }
    }

    /// <summary>Makes an overlay of host directories and completes the plan of its mount.</summary>
    /// <param name="plan">The mount, with destination and flags.</param>
    /// <param name="options">Its options: the layers are among the file system's own.</param>
    /// <param name="where">What messages call the mount.</param>
    /// <exception cref="SandboxException">It cannot be made.</exception>
    internal void AddOverlay(Proto.Mount plan, MountOptions options, string where)
    {
        bool readOnly = IsReadOnly(options);
        Export export = new(
            string.Create(CultureInfo.InvariantCulture, $"{_prefix}mount{Exports.Count}"), OverlayMount.Make(options.Data, readOnly, where), readOnly, IsFile: false);
        Exports.Add(export);
        plan.Flags |= Libc.MS_BIND;
        plan.Data = "";
        Show(plan, export);
    }

    public void Dispose()
    {
        Exports.ForEach(e => e.Dispose());
        Sockets.ForEach(s => s.Dispose());
    }

    private void AddExport(Proto.Mount plan, Mount mount, MountOptions options, SafeFd file, in Libc.statx_t stat, string what)
    {
        bool readOnly = IsReadOnly(options);
        uint type = stat.stx_mode & Libc.S_IFMT;
        bool follows = type == Libc.S_IFDIR && AsksToFollow(options) && _mounts.Propagates(stat.stx_mnt_id);
        bool sockets = (type is Libc.S_IFDIR or Libc.S_IFIFO) && ShowsSockets(mount);
        bool recursive = (options.Flags & Libc.MS_REC) != 0;
        bool anyBelow = type == Libc.S_IFDIR && _mounts.AnyBelow(file);

        // The sockets of a directory are looked for with the mounts below it in place.
        ulong tree = follows ? Libc.MS_SLAVE : recursive && anyBelow && !sockets ? Libc.MS_PRIVATE : 0;
        Export export = Export.Detach(
            string.Create(CultureInfo.InvariantCulture, $"{_prefix}mount{Exports.Count}"), file, type, readOnly, what, recursive, tree) with
        {
            HidesMounts = anyBelow && (tree != 0 || !recursive),
            ReadOnlyBelow = (options.RecursiveSet & Libc.MOUNT_ATTR_RDONLY) != 0,
            ShowsSockets = sockets,
        };
        Exports.Add(export);
        plan.Grows = tree != 0 || export.FollowsSockets;
        for (int i = 0; plan.Grows && i < plan.Propagation.Count; i++)
        {
            // What is added below comes by the guest's own propagation, also where the host's mounts are not to be followed.
            if ((plan.Propagation[i] & Libc.MS_PRIVATE) != 0)
            {
                plan.Propagation[i] = (plan.Propagation[i] & ~Libc.MS_PRIVATE) | Libc.MS_SLAVE;
            }
        }

        Show(plan, export);
    }

    private static void Show(Proto.Mount plan, Export export)
    {
        plan.Kind = Proto.Mount.Types.Kind.Export;
        plan.FsTag = Export.Tag;
        plan.Source = export.GuestPath;
        plan.SourceIsFile = export.IsFile;
    }

    private static bool IsReadOnly(MountOptions options) =>
        (options.Flags & Libc.MS_RDONLY) != 0 || (options.RecursiveSet & Libc.MOUNT_ATTR_RDONLY) != 0;

    // As runc: a mount that does not say otherwise is as the container's root is, and that is a slave by default.
    private bool AsksToFollow(MountOptions options)
    {
        ulong last = options.Propagation.Count > 0 ? options.Propagation[^1] : MountOptions.RootfsPropagation(_rootfsPropagation);
        return (last & (Libc.MS_PRIVATE | Libc.MS_UNBINDABLE)) == 0;
    }

    private static void AddDevice(Proto.Mount plan, in Libc.statx_t stat, string path)
    {
        plan.Kind = Proto.Mount.Types.Kind.Device;
        plan.Source = path;
        plan.SourceIsFile = true;
        plan.Device = new Proto.Device
        {
            Path = path,
            Type = (stat.stx_mode & Libc.S_IFMT) == Libc.S_IFBLK ? 'b' : 'c',
            Major = stat.stx_rdev_major,
            Minor = stat.stx_rdev_minor,
            Mode = stat.stx_mode & 0xFFFu,
            Uid = stat.stx_uid,
            Gid = stat.stx_gid,
        };
    }

    private bool ShowsSockets(Mount mount) => _allSockets || mount.Options?.Contains(SocketsOption) == true;

    private void AddSocket(Proto.Mount plan, Mount mount, SafeFd file, in Libc.statx_t stat, string path, string what)
    {
        if (!ShowsSockets(mount))
        {
            throw new SandboxException($"{what} {path} is a socket, and a VM reaches sockets of the host only where a mount asks for it: add the mount option \"{SocketsOption}\" or the annotation {VmAnnotations.HostSockets}=true");
        }

        HostSocket socket = new(_firstPort + (uint)Sockets.Count, file.Duplicate(), path);
        Sockets.Add(socket);
        plan.Kind = Proto.Mount.Types.Kind.Socket;
        plan.Source = path;
        plan.SourceIsFile = true;
        plan.Socket = new Proto.HostSocket { Port = socket.Port, Mode = stat.stx_mode & 0xFFFu, Uid = stat.stx_uid, Gid = stat.stx_gid };
    }
}
