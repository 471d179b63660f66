using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Agent.Cgroups;

/// <summary>Tells on the loop when a watched cgroup's memory.events changes; no polling (inotify on the file).</summary>
public sealed unsafe class OomWatch : IEventHandler, IDisposable
{
    private readonly EventLoop _loop;
    private readonly Dictionary<int, Action> _changed = [];
    private SafeFd? _inotify;

    /// <summary>Creates a watch of nothing.</summary>
    public OomWatch(EventLoop loop) => _loop = loop;

    /// <summary>Calls <paramref name="changed"/> whenever the cgroup's memory.events changes. False: it has none.</summary>
    /// <exception cref="LinuxException">No descriptor is free.</exception>
    public bool Add(ContainerCgroup cgroup, Action changed)
    {
        ArgumentNullException.ThrowIfNull(cgroup);
        if (_inotify is null)
        {
            _inotify = SafeFd.From(Libc.inotify_init1(Libc.IN_CLOEXEC | Libc.IN_NONBLOCK), "inotify_init1");
            _loop.Add(_inotify, Libc.EPOLLIN, this);
        }

        int watch = Libc.inotify_add_watch(_inotify.Value, cgroup.Path + "/memory.events", Libc.IN_MODIFY);
        if (watch < 0 && Check.LastErrno == Errno.ENOENT)
        {
            return false;
        }

        // The kernel takes the watch away with the file.
        _changed[Check.Result(watch, "inotify_add_watch", cgroup.Path)] = changed;
        return true;
    }

    /// <inheritdoc/>
    public void OnReady(SafeFd fd, uint events)
    {
        const int size = 4096;
        byte* buffer = stackalloc byte[size];
        nint n = Libc.read(fd.Value, buffer, size);
        HashSet<Action> due = [];
        for (nint at = 0; at < n;)
        {
            Libc.inotify_event* e = (Libc.inotify_event*)(buffer + at);
            if ((e->mask & Libc.IN_IGNORED) != 0)
            {
                _changed.Remove(e->wd);
            }
            else if (_changed.TryGetValue(e->wd, out Action? changed))
            {
                due.Add(changed);
            }

            at += sizeof(Libc.inotify_event) + (nint)e->len;
        }

        foreach (Action changed in due)
        {
            changed();
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_inotify is not null)
        {
            _loop.Remove(_inotify);
            _inotify.Dispose();
        }
    }
}
