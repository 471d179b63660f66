using System.Globalization;
using System.Runtime.InteropServices;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.Vm;
using HostSocket = MicroVm.Sandbox.Vm.HostSocket;

namespace MicroVm.Sandbox.Proxies;

/// <summary>
/// Finds the host's listening sockets in directories that are exported with <c>host-sockets</c>, now and as daemons come and go
/// (inotify(7)), and has each stood for by one in the guest, mounted over its name. Sockets that nobody listens on at the host,
/// such as those that the container makes, are left alone.
/// </summary>
internal sealed unsafe class SocketFollower : IDisposable
{
    /// <summary>What it needs of the kernel while the container runs, beside reading and connecting.</summary>
    internal static readonly string[] SystemCalls = ["inotify_init1", "inotify_add_watch"];

    // Bounds of what a guest can make this process do and hold by making directories and files.
    private const int MaxDirectories = 256, MaxDepth = 6, MaxSockets = 128, MaxEntries = 4096;
    private const int EventBuffer = 16 << 10;
    private const int PauseMilliseconds = 100;

    // A daemon binds its socket's name before it listens.
    private static readonly int[] RetryMilliseconds = [100, 400, 1500, 5000];

    // Longer than a guest believes a name without asking.
    private const int ConfirmMilliseconds = 1500;
    private readonly Dictionary<int, Watched> _directories = [];
    private readonly HostSocketRelay _relay;
    private readonly Guest _guest;
    private readonly GuestSocketRelay? _own;
    private readonly Action<string> _warn;
    private readonly SafeFd _inotify;
    private readonly EventFd _stop = new();
    private readonly Thread _thread;
    private uint _nextPort;
    private int _sockets;
    private volatile bool _ending;

    private SocketFollower(HostSocketRelay relay, uint firstPort, Guest guest, bool sharesSockets, Action<string> warn)
    {
        (_relay, _nextPort, _guest, _warn) = (relay, firstPort, guest, warn);
        _own = sharesSockets ? guest.NeedSockets() : null;
        _inotify = SafeFd.From(Libc.inotify_init1(Libc.IN_CLOEXEC | Libc.IN_NONBLOCK), "inotify_init1");
        _thread = new Thread(Run, 512 << 10) { IsBackground = true, Name = "socket finder" };
    }

    /// <summary>Starts to follow, with what is there now shown to the container; null when no export asks for it.</summary>
    /// <param name="exports">The container's exports.</param>
    /// <param name="relay">Carries the connections.</param>
    /// <param name="firstPort">The first port that is free.</param>
    /// <param name="guest">Mounts the sockets.</param>
    /// <param name="warn">Takes a line about what cannot be shown.</param>
    /// <exception cref="SandboxException">The agent refused, or is gone.</exception>
    internal static SocketFollower? Start(IReadOnlyList<Export> exports, HostSocketRelay? relay, uint firstPort, Guest guest, Action<string> warn)
    {
        if (relay is null || !exports.Any(e => e.FollowsSockets))
        {
            return null;
        }

        SocketFollower follower = new(relay, firstPort, guest, exports.Any(e => e.SharesSockets), warn);
        foreach (Export export in exports.Where(e => e.FollowsSockets))
        {
            _ = follower.Watch(export.File, export.Name, "", 0);
        }

        follower.Update(follower._directories.Values.ToArray());
        follower._thread.Start();
        return follower;
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
        foreach (Watched directory in _directories.Values)
        {
            directory.File.Dispose();
        }

        _inotify.Dispose();
        _stop.Dispose();
    }

    private void Run()
    {
        try
        {
            HashSet<Watched> changed = [];
            while (Wait(changed))
            {
                Update([.. changed]);
                changed.Clear();

                // However fast the container makes files.
                Thread.Sleep(PauseMilliseconds);
            }
        }
        catch (Exception e) when (e is LinuxException or SandboxException or ObjectDisposedException)
        {
            if (!_ending)
            {
                _warn($"sockets of the host are not followed any more: {e.Message}");
            }
        }
    }

    // False: the end. Else the directories in which something changed, or a socket is to be tried again.
    private bool Wait(HashSet<Watched> changed)
    {
        long now = Environment.TickCount64;
        long next = _directories.Values.Min(d => (long?)d.RetryAt) ?? long.MaxValue;
        Libc.pollfd* fds = stackalloc Libc.pollfd[2];
        fds[0] = new Libc.pollfd { fd = _inotify.Value, events = Libc.POLLIN };
        fds[1] = new Libc.pollfd { fd = _stop.Fd.Value, events = Libc.POLLIN };
        int ready = Libc.poll(fds, 2, next == long.MaxValue ? -1 : (int)Math.Clamp(next - now, 0, int.MaxValue));
        if (!Check.Retry(ready))
        {
            Check.Result(ready, "poll", "inotify");
        }

        if (fds[1].revents != 0)
        {
            return false;
        }

        byte* buffer = stackalloc byte[EventBuffer];
        nint n;
        while ((n = Libc.read(_inotify.Value, buffer, EventBuffer)) > 0)
        {
            for (nint at = 0; at < n; at += sizeof(Libc.inotify_event) + (nint)((Libc.inotify_event*)(buffer + at))->len)
            {
                if (_directories.TryGetValue(((Libc.inotify_event*)(buffer + at))->wd, out Watched? directory))
                {
                    changed.Add(directory);
                }
            }
        }

        changed.UnionWith(_directories.Values.Where(d => d.RetryAt <= Environment.TickCount64));
        return true;
    }

    /// <summary>Watches a directory; null when it is watched already, or cannot be.</summary>
    private Watched? Watch(SafeFd directory, string export, string path, int depth)
    {
        if (_directories.Count == MaxDirectories)
        {
            return null;
        }

        string link = string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{directory.Value}");
        const uint mask = Libc.IN_CREATE | Libc.IN_MOVED_TO | Libc.IN_MOVED_FROM | Libc.IN_DELETE | Libc.IN_ONLYDIR;
        int wd = Libc.inotify_add_watch(_inotify.Value, link, mask);
        if (wd < 0 || _directories.ContainsKey(wd))
        {
            return null;
        }

        Watched watched = new(export, path, depth, directory.Duplicate());
        _directories.Add(wd, watched);
        return watched;
    }

    private void Update(IReadOnlyList<Watched> directories)
    {
        ChangeMountsRequest request = new();
        ForgetRemoved(request);
        Queue<Watched> queue = new(directories.Where(d => !d.File.IsClosed));
        while (queue.TryDequeue(out Watched? directory))
        {
            Scan(directory, request, queue);
        }

        if (request.Changes.Count > 0)
        {
            _guest.Call("show the host's sockets", agent => agent.ChangeMounts(request));
        }
    }

    /// <summary>Lets go of directories that were removed: the descriptors would keep them on the disk, and others need their places.</summary>
    private void ForgetRemoved(ChangeMountsRequest request)
    {
        byte empty = 0;
        foreach ((int watch, Watched directory) in _directories.ToArray())
        {
            Libc.statx_t stat;
            if (directory.Depth > 0 && Libc.statx(directory.File.Value, &empty, Libc.AT_EMPTY_PATH, Libc.STATX_NLINK, &stat) == 0 && stat.stx_nlink == 0)
            {
                Hide(directory, directory.Sockets.Keys, request);
                _directories.Remove(watch);
                directory.File.Dispose();
            }
        }
    }

    /// <summary>Shows the sockets that are in a directory, and no longer those that were; directories below that are new go to the queue.</summary>
    private void Scan(Watched directory, ChangeMountsRequest request, Queue<Watched> queue)
    {
        using SafeFd list = new(Libc.openat(directory.File.Value, ".", Libc.O_RDONLY | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0));
        Dictionary<string, ulong> found = [];
        if (!list.IsInvalid)
        {
            FolderEntries.Read(list, name =>
            {
                Libc.statx_t stat;
                if (Libc.statx(list.Value, name, Libc.AT_SYMLINK_NOFOLLOW, Libc.STATX_TYPE | Libc.STATX_INO, &stat) != 0)
                {
                    return;
                }

                string text = Marshal.PtrToStringUTF8((nint)name)!;
                if ((stat.stx_mode & Libc.S_IFMT) == Libc.S_IFSOCK)
                {
                    if (_own?.Owns(stat) != true)
                    {
                        found[text] = stat.stx_ino;
                    }
                }
                else if ((stat.stx_mode & Libc.S_IFMT) == Libc.S_IFDIR && directory.Depth < MaxDepth)
                {
                    using SafeFd below = new(Libc.openat(list.Value, text, Libc.O_PATH | Libc.O_DIRECTORY | Libc.O_NOFOLLOW | Libc.O_CLOEXEC, 0));
                    if (!below.IsInvalid && Watch(below, directory.Export, $"{directory.Path}/{text}", directory.Depth + 1) is { } added)
                    {
                        queue.Enqueue(added);
                    }
                }
            },
            most: MaxEntries);
        }

        Hide(directory, directory.Sockets.Where(s => found.GetValueOrDefault(s.Key) != s.Value.Inode).Select(s => s.Key), request);
        directory.RetryAt = null;
        foreach ((string name, ulong inode) in found)
        {
            Offer(directory, name, inode, request);
        }
    }

    private void Hide(Watched directory, IEnumerable<string> names, ChangeMountsRequest request)
    {
        foreach (string name in names.ToArray())
        {
            _ = directory.Sockets.Remove(name, out Shown? shown);
            _sockets--;
            if (shown!.Change?.Socket.Port is { } port)
            {
                _relay.Remove(port);
                request.Changes.Add(new MountChange { FsTag = Export.Tag, Export = directory.Export, Path = $"{directory.Path}/{name}" });
            }
        }
    }

    private void Offer(Watched directory, string name, ulong inode, ChangeMountsRequest request)
    {
        if (!directory.Sockets.TryGetValue(name, out Shown? shown))
        {
            if (_sockets == MaxSockets)
            {
                return;
            }

            _sockets++;
            directory.Sockets.Add(name, shown = new Shown(inode));
        }

        if (shown.Change is not null)
        {
            Confirm(directory, shown, request);
            return;
        }

        if (shown.Tries > RetryMilliseconds.Length)
        {
            return;
        }

        using SafeFd file = new(Libc.openat(directory.File.Value, name, Libc.O_PATH | Libc.O_NOFOLLOW | Libc.O_CLOEXEC, 0));
        string path = $"{directory.Export}:{directory.Path}/{name}";
        if (file.IsInvalid || FileType.Describe(file, path) is var stat && ((stat.stx_mode & Libc.S_IFMT) != Libc.S_IFSOCK || stat.stx_ino != inode || _own?.Owns(stat) == true))
        {
            return;
        }

        if (!HostSocketRelay.Listens(file))
        {
            if (shown.Tries < RetryMilliseconds.Length)
            {
                long again = Environment.TickCount64 + RetryMilliseconds[shown.Tries];
                directory.RetryAt = Math.Min(directory.RetryAt ?? long.MaxValue, again);
            }

            shown.Tries++;
            return;
        }

        using HostSocket socket = new(_nextPort++, file.Duplicate(), path);
        _relay.Add(socket);
        shown.Change = new MountChange
        {
            FsTag = Export.Tag,
            Export = directory.Export,
            Path = $"{directory.Path}/{name}",
            Socket = new Protocol.Agent.HostSocket { Port = socket.Port, Mode = stat.stx_mode & 0xFFFu, Uid = stat.stx_uid, Gid = stat.stx_gid },
        };
        _relay.Introduce(shown.Change.Socket);
        request.Changes.Add(shown.Change);
        shown.ConfirmAt = Environment.TickCount64 + ConfirmMilliseconds;
        directory.RetryAt = Math.Min(directory.RetryAt ?? long.MaxValue, shown.ConfirmAt.Value);
    }

    // The guest may have mounted over what it still took for the name's file: when it hears of the new file, that mount is gone.
    private static void Confirm(Watched directory, Shown shown, ChangeMountsRequest request)
    {
        if (shown.ConfirmAt is not { } at)
        {
            return;
        }

        if (at > Environment.TickCount64)
        {
            directory.RetryAt = Math.Min(directory.RetryAt ?? long.MaxValue, at);
            return;
        }

        shown.ConfirmAt = null;
        request.Changes.Add(shown.Change);
    }

    /// <summary>A directory that is watched; owns its descriptor.</summary>
    private sealed record Watched(string Export, string Path, int Depth, SafeFd File)
    {
        public Dictionary<string, Shown> Sockets { get; } = [];

        /// <summary>When a socket that nobody listened on is tried again (Environment.TickCount64); null: none is.</summary>
        public long? RetryAt { get; set; }
    }

    /// <summary>A socket of the host by its inode number.</summary>
    private sealed record Shown(ulong Inode)
    {
        /// <summary>What showed it; null: it is not shown.</summary>
        public MountChange? Change { get; set; }

        /// <summary>When that is asked for once more (Environment.TickCount64).</summary>
        public long? ConfirmAt { get; set; }

        public int Tries { get; set; }
    }
}
