using System.Globalization;
using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Jail;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.Vm;
using MicroVm.VmmControl;

namespace MicroVm.Sandbox.Proxies;

/// <summary>
/// Shows the host's mounts below exports. Copies of the exports' trees lie in a mount namespace of this thread's own. Where an
/// export's propagation asks for it (rslave, Kubernetes' HostToContainer) the copies are slaves: the host's later mounts appear
/// there by propagation and go again; nobody holds a file in them, so the host can always unmount. Each mount there becomes an
/// export of the VM, and the agent mounts it below the first, from where the guest's own propagation takes it to the container.
/// </summary>
internal sealed unsafe class MountFollower : IDisposable
{
    /// <summary>What it needs of the kernel beside reading: a namespace with the exports in it, and a copy of each new mount.</summary>
    internal static readonly string[] SystemCalls = ["open_tree", "mount_setattr", "mount", "umount2", "move_mount", "pivot_root"];

    private const int MaxMountInfo = 64 << 20;

    // What the host has mounted below a volume; a guest cannot add to it.
    private const int MaxMounts = 10_000;
    private readonly List<(Export Export, SafeFd Tree)> _exports;
    private readonly Vmm _vmm;
    private readonly Guest _guest;
    private readonly Action<string> _warn;
    private readonly EventFd _stop = new();
    private readonly Dictionary<ulong, Followed> _followed = [];
    private readonly ManualResetEventSlim _first = new();
    private readonly Thread _thread;
    private Exception? _failure;
    private volatile bool _ending;
    private int _made;

    /// <summary>Names of the exports that it has added, and not taken away; once it has ended.</summary>
    internal IEnumerable<string> Added => _followed.Values.Select(f => f.Name);

    private MountFollower(List<(Export Export, SafeFd Tree)> exports, Vmm vmm, Guest guest, Action<string> warn)
    {
        (_exports, _vmm, _guest, _warn) = (exports, vmm, guest, warn);
        _thread = new Thread(Run, 512 << 10) { IsBackground = true, Name = "mounts" };
    }

    /// <summary>Starts to follow, and waits until what is mounted now is shown to the container; null when no export follows.</summary>
    /// <param name="exports">The container's exports; their trees are copied.</param>
    /// <param name="vmm">Gets the exports.</param>
    /// <param name="guest">Mounts them.</param>
    /// <param name="warn">Takes a line about what cannot be shown.</param>
    /// <exception cref="SandboxException">The namespace cannot be made.</exception>
    internal static MountFollower? Start(IReadOnlyList<Export> exports, Vmm vmm, Guest guest, Action<string> warn)
    {
        List<(Export Export, SafeFd Tree)> following = [.. exports.Where(e => e.Tree is not null).Select(e => (e, e.Tree!.Duplicate()))];
        if (following.Count == 0)
        {
            return null;
        }

        MountFollower follower = new(following, vmm, guest, warn);
        follower._thread.Start();
        follower._first.Wait();
        return follower._failure is null ? follower : throw new SandboxException($"the host's mounts cannot be followed: {follower._failure.Message}", follower._failure);
    }

    /// <summary>Begins to end: a call to the guest that fails from now on is no failure.</summary>
    internal void Stop()
    {
        _ending = true;
        _stop.Signal();
    }

    /// <summary>Ends it, once the VM has ended: a call to the guest may be under way.</summary>
    public void Dispose()
    {
        Stop();
        _thread.Join();
        _stop.Dispose();
        _first.Dispose();
    }

    private void Run()
    {
        try
        {
            using SafeFd info = Enter();
            Update(info);
            _first.Set();
            Follow(info);
        }
        catch (Exception e) when (e is LinuxException or SandboxException or ObjectDisposedException)
        {
            // A VM that ends while a mount is sent to it is no failure.
            _failure = e;
            if (_first.IsSet && !_ending)
            {
                _warn($"mounts of the host are not followed any more: {e.Message}");
            }

            _first.Set();
        }
        finally
        {
            _exports.ForEach(e => e.Tree.Dispose());
        }
    }

    private void Follow(SafeFd info)
    {
        Libc.pollfd* fds = stackalloc Libc.pollfd[2];
        while (true)
        {
            // A change of the namespace is an exceptional condition of its mountinfo (proc(5)).
            fds[0] = new Libc.pollfd { fd = info.Value, events = Libc.POLLPRI };
            fds[1] = new Libc.pollfd { fd = _stop.Fd.Value, events = Libc.POLLIN };
            int ready = Libc.poll(fds, 2, -1);
            if (Check.Retry(ready))
            {
                continue;
            }

            Check.Result(ready, "poll", "mountinfo");
            if (fds[1].revents != 0)
            {
                return;
            }

            Update(info);
        }
    }

    /// <summary>Makes the namespace, with nothing in it but the trees, each in a directory of its number; its mountinfo.</summary>
    private SafeFd Enter()
    {
        using SafeFd self = SafeFd.From(Libc.open("/proc/thread-self", Libc.O_PATH | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0), "open", "/proc/thread-self");
        Check.Result(Libc.unshare(Libc.CLONE_FS | Libc.CLONE_NEWNS), "unshare", "CLONE_NEWNS");
        Check.Result(Libc.mount(null, "/", null, (nuint)(Libc.MS_REC | Libc.MS_PRIVATE), null), "mount", "/ private");

        // A tmpfs of a few entries, on a directory that every host has, becomes the root.
        Check.Result(Libc.mount("none", "/proc", "tmpfs", (nuint)(Libc.MS_NOSUID | Libc.MS_NODEV | Libc.MS_NOEXEC), "mode=700,nr_inodes=1k"), "mount", "tmpfs");
        using SafeFd root = SafeFd.From(Libc.open("/proc", Libc.O_PATH | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0), "open", "tmpfs");
        Check.Result(Libc.fchdir(root.Value), "fchdir", "tmpfs");
        for (int i = 0; i < _exports.Count; i++)
        {
            string name = i.ToString(CultureInfo.InvariantCulture);
            fixed (byte* p = Encoding.ASCII.GetBytes(name + '\0'))
            {
                Check.Result(Libc.mkdirat(root.Value, p, 0x1c0), "mkdir", name);
            }

            using SafeFd place = SafeFd.From(Libc.openat(root.Value, name, Libc.O_PATH | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0), "open", name);
            if (!DetachedMount.TryAttach(_exports[i].Tree, place))
            {
                Check.Throw("move_mount", _exports[i].Export.Name);
            }
        }

        fixed (byte* here = "."u8)
        {
            Check.Result(Libc.pivot_root(here, here), "pivot_root", "tmpfs");
        }

        Check.Result(Libc.umount2(".", Libc.MNT_DETACH), "umount2", "host's root");
        Check.Result(Libc.fchdir(root.Value), "fchdir", "tmpfs");
        return SafeFd.From(Libc.openat(self.Value, "mountinfo", Libc.O_RDONLY | Libc.O_CLOEXEC, 0), "open", "mountinfo");
    }

    private void Update(SafeFd info)
    {
        Check.Result((nint)Libc.lseek(info.Value, 0, Libc.SEEK_SET), "lseek", "mountinfo");
        List<MountPoint> now = MountPoint.Parse(HostFile.ReadToEnd(info, MaxMountInfo, "mountinfo"));
        HashSet<ulong> ids = [.. now.Select(m => m.Id)];
        ChangeMountsRequest request = new();
        List<string> gone = [];

        // The last first: what lies below goes before what it lies in.
        foreach (Followed mount in _followed.Values.Where(f => !ids.Contains(f.Id)).OrderByDescending(f => f.Number).ToArray())
        {
            _followed.Remove(mount.Id);
            request.Changes.Add(new MountChange { FsTag = Export.Tag, Export = mount.Export, Path = mount.Path });
            gone.Add(mount.Name);
        }

        // A mount that is covered by another cannot be opened; it is tried again at the next change.
        foreach (MountPoint mount in now.Where(m => m.Below.Length > 0 && !_followed.ContainsKey(m.Id)).OrderBy(m => m.Below.Length))
        {
            if (_followed.Count < MaxMounts && Add(mount) is { } added)
            {
                request.Changes.Add(new MountChange { FsTag = Export.Tag, Export = added.Export, Path = added.Path, Source = added.Source });
            }
        }

        if (request.Changes.Count > 0)
        {
            _guest.Call("show the host's mounts", agent => agent.ChangeMounts(request));
        }

        // Last: from now on the host's file system is free.
        foreach (string name in gone)
        {
            _vmm.Control.RemoveExport(name);
        }
    }

    private Followed? Add(MountPoint mount)
    {
        Export export = _exports[mount.Tree].Export;
        using SafeFd file = new(Libc.open(mount.Path, Libc.O_PATH | Libc.O_NOFOLLOW | Libc.O_CLOEXEC, 0));
        try
        {
            if (file.IsInvalid || FileType.Describe(file, mount.Path).stx_mnt_id != mount.Id || FileType.Of(file) is not (Libc.S_IFDIR or Libc.S_IFREG))
            {
                return null;
            }

            using SafeFd tree = DetachedMount.Clone(file, export.ReadOnlyBelow, mount.Path, recursive: false, Libc.MS_PRIVATE);
            int number = _made++;
            Followed followed = new(mount.Id, number, string.Create(CultureInfo.InvariantCulture, $"{export.Name}.{number}"), "", export.Name, mount.Below);
            followed = followed with { Source = Export.PathOf(tree, followed.Name) };
            ControlRequest request = new() { Operation = ControlOperation.AddExport, Tag = Export.Tag, Name = followed.Name, ReadOnly = export.ReadOnlyBelow, Cache = FsCache.Shared };
            _vmm.Control.Request(request, [tree]);
            _followed.Add(mount.Id, followed);
            return followed;
        }
        catch (Exception e) when (e is LinuxException or SandboxException)
        {
            _warn($"a mount of the host at {mount.Below} of {export.Name} is not shown to the container: {e.Message}");
            return null;
        }
    }

    /// <summary>A mount that the container sees.</summary>
    /// <param name="Id">The mount's number in the namespace that is watched.</param>
    /// <param name="Number">How many were shown before it.</param>
    /// <param name="Name">Its export.</param>
    /// <param name="Source">Where that is in the virtio-fs device.</param>
    /// <param name="Export">The export below which it is mounted.</param>
    /// <param name="Path">Where below.</param>
    private sealed record Followed(ulong Id, int Number, string Name, string Source, string Export, string Path);
}
