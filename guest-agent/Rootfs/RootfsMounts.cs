using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;

namespace MicroVm.Agent.Rootfs;

public sealed partial class RootfsBuilder
{
    private const ulong NotMountFlags = Libc.MS_BIND | Libc.MS_REC | Libc.MS_REMOUNT;

    // Devices and copied files are put into these before they become read-only.
    private static bool SealedLater(Mount mount) =>
        mount.Kind == Mount.Types.Kind.Filesystem && (mount.Flags & Libc.MS_RDONLY) != 0
        && (Clean(mount.Destination) == "/dev" || mount.Tmpcopyup);

    private void MountOne(Mount mount, SafeFd? procContext)
    {
        try
        {
            switch (mount.Kind)
            {
                case Mount.Types.Kind.Filesystem:
                    MountFileSystem(mount, procContext);
                    break;
                case Mount.Types.Kind.Export:
                case Mount.Types.Kind.GuestBind when mount.Source.Length > 0:
                    MountBind(mount);
                    break;
                case Mount.Types.Kind.Device:
                case Mount.Types.Kind.Socket:
                case Mount.Types.Kind.Shared:
                    MountBind(mount);
                    break;
                case Mount.Types.Kind.GuestBind:
                    Finish(mount);
                    break;
                default:
                    throw new SetupException($"mount kind {(int)mount.Kind} is not known to this agent");
            }
        }
        catch (LinuxException e)
        {
            string source = mount.HostSource.Length > 0 ? mount.HostSource : mount.Kind == Mount.Types.Kind.Export ? $"{mount.FsTag}:{mount.Source}" : mount.Source.Length > 0 ? mount.Source : mount.Type;
            string data = mount.Data.Length > 0 ? $", data: {mount.Data}" : "";
            throw new SetupException($"error mounting \"{source}\" to rootfs at \"{mount.Destination}\": {e.Operation}, flags: 0x{mount.Flags:x}{data}", e);
        }
    }

    private void MountFileSystem(Mount mount, SafeFd? procContext)
    {
        ulong flags = SealedLater(mount) ? mount.Flags & ~Libc.MS_RDONLY : mount.Flags;
        SafeFd? covered = Root.TryOpen(mount.Destination, Libc.O_PATH | Libc.O_DIRECTORY);
        using SafeFd target = covered ?? Root.MakeDirectory(mount.Destination);
        if (mount.Type is "proc" or "sysfs")
        {
            RefuseLink(mount);
        }

        if (procContext is not null)
        {
            using SafeFd tree = MountCalls.FinishFileSystem(procContext, mount.Source, mount.Data, flags);
            MountCalls.Attach(tree, target);
        }
        else if (_joinedProc is not null && IsProc(mount))
        {
            if (mount.Data.Length > 0)
            {
                throw new SetupException($"procfs at \"{mount.Destination}\" with options ({mount.Data}) is not supported for a container that joins another one's PID namespace");
            }

            using SafeFd source = OpenPath(_joinedProc);
            using SafeFd tree = MountCalls.CloneTree(source, recursive: false);
            MountCalls.SetFlags(tree, flags);
            MountCalls.Attach(tree, target);
        }
        else if (mount.Type is "cgroup" or "cgroup2" && OwnCgroup is { } cgroup)
        {
            // Without a cgroup namespace the file system's root is the guest's, and what is to be seen is the container's.
            using SafeFd source = SafeFd.From(Libc.open(cgroup, Libc.O_PATH | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0), "open", cgroup);
            MountCalls.Bind(source, target, recursive: false);
            using SafeFd mounted = Root.Open(mount.Destination);
            MountCalls.Mount(null, mounted, null, (flags & ~Libc.MS_REC) | Libc.MS_BIND | Libc.MS_REMOUNT, null);
        }
        else
        {
            // A container asks for "cgroup" whichever version the host has; the guest has version 2.
            string type = mount.Type == "cgroup" ? "cgroup2" : mount.Type;
            string? data = type == "cgroup2" ? null : type == "tmpfs" && covered is not null ? WithMode(mount.Data, target) : mount.Data.Length == 0 ? null : mount.Data;
            MountCalls.Mount(mount.Source.Length > 0 ? mount.Source : type, target, type, flags, data);
            if (mount.Tmpcopyup)
            {
                using SafeFd mounted = Root.Open(mount.Destination);
                TreeCopy.Copy(target, mounted);
            }
        }

        Propagate(mount);
    }

    private string? OwnCgroup => _spec.Cgroup is { Path.Length: > 0 } cgroup && !_spec.Namespaces.Any(n => n.Kind == Namespace.Types.Kind.Cgroup)
        ? $"{_paths.Cgroup}/{cgroup.Path.Trim('/')}"
        : null;

    // As runc: a tmpfs whose mode is not given has that of the directory that it covers, if there was one.
    private static unsafe string WithMode(string data, SafeFd directory)
    {
        if (data.StartsWith("mode=", StringComparison.Ordinal) || data.Contains(",mode=", StringComparison.Ordinal))
        {
            return data;
        }

        Libc.statx_t stat;
        byte empty = 0;
        Check.Result(Libc.statx(directory.Value, &empty, Libc.AT_EMPTY_PATH, Libc.STATX_MODE, &stat), "statx");
        string mode = "mode=" + Convert.ToString(stat.stx_mode & 0xfff, 8);
        return data.Length == 0 ? mode : $"{mode},{data}";
    }

    private void MountBind(Mount mount)
    {
        using SafeFd source = OpenSource(mount);
        using SafeFd target = mount.SourceIsFile ? Root.MakeFile(mount.Destination) : Root.MakeDirectory(mount.Destination);
        MountCalls.Bind(source, target, (mount.Flags & Libc.MS_REC) != 0);
        Finish(mount);
    }

    private SafeFd OpenSource(Mount mount)
    {
        switch (mount.Kind)
        {
            case Mount.Types.Kind.Export when mount.Grows:
                return OpenPath(_fileSystems.GrowingPathOf(mount.FsTag, mount.Source));
            case Mount.Types.Kind.Export:
                return OpenExport(mount.FsTag, mount.Source);
            case Mount.Types.Kind.Shared:
                return OpenPath(_fileSystems.SharedPathOf(mount.Source));
            case Mount.Types.Kind.Socket:
                return OpenPath(_fileSystems.SocketPathOf(mount.Socket.Port));
            case Mount.Types.Kind.Device:
                Device device = mount.Device ?? throw new SetupException($"the mount at \"{mount.Destination}\" names no device");
                return _devices.Has(device) ? OpenNode(device) : throw new SetupException(
                    $"error mounting \"{mount.Source}\" to rootfs at \"{mount.Destination}\": the VM has no {(device.Type == 'b' ? "block" : "character")} device {device.Major}:{device.Minor}, and those of the host do not reach into it");
            default:
                return OpenPath(mount.Source);
        }
    }

    private static SafeFd OpenPath(string path) => SafeFd.From(Libc.open(path, Libc.O_PATH | Libc.O_NOFOLLOW | Libc.O_CLOEXEC, 0), "open", path);

    // Flags of a bind take effect by a second call; so do propagation and recursive attributes.
    private void Finish(Mount mount)
    {
        if ((mount.Flags & ~NotMountFlags) != 0 || mount.ClearedFlags != 0)
        {
            using SafeFd mounted = Root.Open(mount.Destination);
            MountCalls.Mount(null, mounted, null, (mount.Flags & ~Libc.MS_REC) | Libc.MS_BIND | Libc.MS_REMOUNT, null);
        }

        Propagate(mount);
    }

    private void Propagate(Mount mount)
    {
        if (mount.Propagation.Count == 0 && (mount.RecursiveSet | mount.RecursiveClear) == 0)
        {
            return;
        }

        using SafeFd mounted = Root.Open(mount.Destination);
        foreach (ulong propagation in mount.Propagation)
        {
            MountCalls.Mount(null, mounted, null, propagation, null);
        }

        if ((mount.RecursiveSet | mount.RecursiveClear) != 0)
        {
            MountCalls.SetAttributes(mounted, mount.RecursiveSet, mount.RecursiveClear, recursive: true);
        }
    }

    // An image must not be able to say where the container's procfs and sysfs really go.
    private void RefuseLink(Mount mount)
    {
        using SafeFd? link = Root.TryOpen(Clean(mount.Destination), Libc.O_PATH | Libc.O_NOFOLLOW | Libc.O_DIRECTORY);
        if (link is null)
        {
            throw new SetupException($"filesystem \"{mount.Type}\" must be mounted on ordinary directory");
        }
    }
}
