using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Linux.Tracing;
using MicroVm.Protocol.Agent;

namespace MicroVm.Agent.Rootfs;

/// <summary>
/// Builds a container's mount tree. Runs on the container's setup thread, which is in the container's namespaces (but the
/// PID and user namespaces) and still sees the agent's root; after <see cref="Pivot"/> it sees the container's.
/// </summary>
public sealed unsafe partial class RootfsBuilder : IDisposable
{
    private readonly AgentPaths _paths;
    private readonly FileSystems _fileSystems;
    private readonly ContainerSpec _spec;
    private readonly GuestDevices _devices;
    private readonly StepRecorder _trace;
    private string? _joinedProc;
    private RootDirectory? _root;
    private SafeFd? _nodes;
    private int _nodeCount;

    /// <summary>Prepares to build the root of <paramref name="spec"/>.</summary>
    public RootfsBuilder(AgentPaths paths, FileSystems fileSystems, ContainerSpec spec, StepRecorder? trace = null)
    {
        _trace = trace ?? StepRecorder.Off;
        ArgumentNullException.ThrowIfNull(paths);
        _paths = paths;
        _devices = new GuestDevices(paths.Devices);
        _fileSystems = fileSystems;
        _spec = spec;
    }

    /// <summary>The container's root; what is at "/" after the pivot.</summary>
    public RootDirectory Root => _root ?? throw new InvalidOperationException("the root is not mounted yet");

    /// <summary>Indexes of the spec's devices that the guest's kernel has no driver for, and which were not made.</summary>
    public List<uint> MissingDevices { get; } = [];

    /// <summary>Mounts the root and everything in it.</summary>
    /// <param name="procContexts">fsopen(2) contexts of the spec's proc mounts, in order, made in the container's PID namespace.</param>
    /// <param name="joinedProc">Where the procfs of a PID namespace is that the container joins (<see cref="NamespaceProc"/>), in their place; else null.</param>
    /// <exception cref="SetupException">A step failed.</exception>
    public void Build(IReadOnlyList<SafeFd> procContexts, string? joinedProc = null)
    {
        _joinedProc = joinedProc;
        _ = Libc.umask(0);
        using (_trace.Begin("mount the root"))
        {
            MountRoot();
        }

        bool makeDevices = true;
        int procs = 0;
        foreach (Mount mount in _spec.Mounts)
        {
            using StepScope step = _trace.Begin(_trace.IsOn ? $"mount {mount.Destination}" : "");
            MountOne(mount, IsProc(mount) && joinedProc is null ? procContexts[procs++] : null);
            if (Clean(mount.Destination) == "/dev" && mount.Kind != Mount.Types.Kind.Filesystem)
            {
                makeDevices = false;
            }
        }

        if (makeDevices)
        {
            using StepScope step = _trace.Begin("make the devices");
            MakeDevices();
        }
    }

    /// <summary>Read-only tmpfs, masked and read-only paths, read-only root: after which nothing can be made any more.</summary>
    /// <exception cref="SetupException">A step failed.</exception>
    public void Seal()
    {
        foreach (Mount mount in _spec.Mounts)
        {
            if (SealedLater(mount))
            {
                using SafeFd target = Root.Open(mount.Destination);
                Step($"remount \"{mount.Destination}\" read-only", () => MountCalls.SetAttributes(target, Libc.MOUNT_ATTR_RDONLY, 0, false));
            }
        }

        foreach (string path in _spec.ReadonlyPaths)
        {
            Step($"make \"{path}\" read-only", () =>
            {
                using SafeFd? target = Root.TryOpen(path);
                if (target is not null)
                {
                    MountCalls.MakeReadOnly(target);
                }
            });
        }

        foreach (string path in _spec.MaskedPaths)
        {
            Step($"mask path \"{path}\"", () => Mask(path));
        }

        if (_spec.Root.ReadOnly)
        {
            Step("make the root read-only", () => MountCalls.SetAttributes(Root.Fd, Libc.MOUNT_ATTR_RDONLY, 0, false));
        }
    }

    /// <summary>Makes the container's root the root of the mount namespace, and of the waiting child.</summary>
    /// <exception cref="SetupException">The kernel refused.</exception>
    public void Pivot() => Step("pivot_root", () =>
    {
        Check.Result(Libc.fchdir(Root.Fd.Value), "fchdir");
        fixed (byte* dot = "."u8)
        {
            // pivot_root(2) stacks the old root on the new one when both are ".", from where it is detached.
            Check.Result(Libc.pivot_root(dot, dot), "pivot_root");
        }

        if (_fileSystems.HasGrowing)
        {
            // What is unmounted with the old root must stay mounted for the others who see it.
            Check.Result(Libc.mount(null, ".", null, (nuint)(Libc.MS_SLAVE | Libc.MS_REC), null), "mount", "propagation of the old root");
        }

        Check.Result(Libc.umount2(".", Libc.MNT_DETACH), "umount2", "the old root");
        ulong propagation = _spec.Root.Propagation;
        if ((propagation & ~Libc.MS_REC) is not (0 or Libc.MS_SLAVE or Libc.MS_PRIVATE))
        {
            Check.Result(Libc.mount(null, "/", null, (nuint)propagation, null), "mount", "propagation of /");
        }
    });

    /// <inheritdoc/>
    public void Dispose()
    {
        _root?.Dispose();
        _nodes?.Dispose();
    }

    /// <summary>True for a mount of procfs, which needs a context from the container's PID namespace.</summary>
    public static bool IsProc(Mount mount)
    {
        ArgumentNullException.ThrowIfNull(mount);
        return mount.Kind == Mount.Types.Kind.Filesystem && mount.Type == "proc";
    }

    private static string Clean(string path) => path.Length > 1 ? path.TrimEnd('/') : path;

    private static void Step(string what, Action action)
    {
        try
        {
            action();
        }
        catch (LinuxException e)
        {
            throw new SetupException(what, e);
        }
    }

    private SafeFd OpenExport(string tag, string path)
    {
        using RootDirectory export = RootDirectory.At(_fileSystems.PathOf(tag));
        return export.Open(path);
    }

    private void MountRoot()
    {
        Step($"mounting the root \"{_spec.Root.FsPath}\" of virtio-fs \"{_spec.Root.FsTag}\"", () =>
        {
            using SafeFd source = OpenExport(_spec.Root.FsTag, _spec.Root.FsPath);
            using SafeFd staging = SafeFd.From(Libc.open(_paths.Staging, Libc.O_PATH | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0), "open", _paths.Staging);
            SafeFd tree = MountCalls.CloneTree(source, recursive: true);
            MountCalls.Attach(tree, staging);
            // The tree's descriptor is the root of the mount that was attached.
            _root = new RootDirectory(tree);
        });
    }

    private void Mask(string path)
    {
        using SafeFd? target = Root.TryOpen(path);
        if (target is null)
        {
            return;
        }

        try
        {
            MountCalls.Mount("/dev/null", target, null, Libc.MS_BIND, null);
        }
        catch (LinuxException e) when (e.Errno == Errno.ENOTDIR)
        {
            MountCalls.Mount("tmpfs", target, "tmpfs", Libc.MS_RDONLY, null);
        }
    }
}
