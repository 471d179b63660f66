using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.VirtioFs.Fifos;

/// <summary>
/// FIFOs that the guest has open at this server: whether the other end is there, and which of them the guest waits for. The
/// descriptors are the handles' and never wait.
/// </summary>
/// <remarks>
/// Any thread. An edge-triggered epoll instance tells when a FIFO may have data, room or an end: a handle that the guest waits for is then
/// due, once, until the guest asks again. At most <see cref="Max"/> handles.
/// </remarks>
internal sealed class HostFifos : IDisposable
{
    /// <summary>Most FIFOs that the guest has open at once; then ENFILE.</summary>
    public const int Max = 1024;

    private const int EventsAtOnce = 64;
    private readonly Lock _gate = new();
    private readonly Dictionary<ulong, Waiter> _waiters = new(Max);
    private readonly SafeFd _copyFrom;
    private readonly SafeFd _copyTo;
    private int _due;

    /// <summary>Makes an instance without FIFOs.</summary>
    /// <exception cref="LinuxException">No descriptor is free.</exception>
    public HostFifos()
    {
        Fd = SafeFd.From(Libc.epoll_create1(Libc.EPOLL_CLOEXEC), "epoll_create1");
        (_copyFrom, _copyTo) = Pipe.Create();
    }

    /// <summary>Readable when <see cref="Collect"/> has something to do.</summary>
    public SafeFd Fd { get; }

    /// <summary>A handle that the guest waits for may be ready.</summary>
    public bool HasDue => Volatile.Read(ref _due) > 0;

    /// <summary>Whether there is, or was since <paramref name="fd"/> was opened, a writer.</summary>
    /// <param name="fd">A FIFO that is open for reading, without waiting.</param>
    // Safe: the kernel reads and writes locals of this call only.
    public unsafe bool HasHadWriter(int fd)
    {
        Libc.pollfd poll = new() { fd = fd, events = Libc.POLLIN };
        if (Libc.poll(&poll, 1, 0) != 0)
        {
            return true; // data, or a writer that has gone
        }

        // tee(2) of an empty pipe is an end of file without a writer and EAGAIN with one; it takes nothing out.
        lock (_gate)
        {
            byte copied;
            nint length = Libc.tee(fd, _copyTo.Value, 1, Libc.SPLICE_F_NONBLOCK);
            return length < 0 || (length > 0 && Libc.read(_copyFrom.Value, &copied, 1) == 1);
        }
    }

    /// <summary>Adds a handle; false when there are too many.</summary>
    // Safe: the kernel reads and writes locals of this call only.
    public unsafe bool TryAdd(ulong handle, int fd)
    {
        lock (_gate)
        {
            Libc.epoll_event e = new() { events = Libc.EPOLLIN | Libc.EPOLLOUT | Libc.EPOLLET, data = handle };
            if (_waiters.Count >= Max || Libc.epoll_ctl(Fd.Value, Libc.EPOLL_CTL_ADD, fd, &e) != 0)
            {
                return false;
            }

            _waiters[handle] = default;
            return true;
        }
    }

    /// <summary>Forgets a handle that is closed, if it is known; its descriptor leaves the instance by being closed.</summary>
    public void Remove(ulong handle)
    {
        lock (_gate)
        {
            if (_waiters.Remove(handle, out Waiter waiter) && waiter.IsDue)
            {
                _due--;
            }
        }
    }

    /// <summary>Forgets all.</summary>
    public void Clear()
    {
        lock (_gate)
        {
            _waiters.Clear();
            _due = 0;
        }
    }

    /// <summary>The guest waits for a handle from now on; to be called before its state is looked at.</summary>
    /// <param name="handle">The handle.</param>
    /// <param name="key">What the guest's kernel calls the open file.</param>
    public void Want(ulong handle, ulong key)
    {
        lock (_gate)
        {
            ref Waiter waiter = ref CollectionsMarshal.GetValueRefOrNullRef(_waiters, handle);
            if (!Unsafe.IsNullRef(ref waiter))
            {
                waiter.Key = key;
                waiter.IsWanted = true;
            }
        }
    }

    /// <summary>Takes what the instance has to tell.</summary>
    // Safe: the kernel writes at most EventsAtOnce events to the stack, and says how many.
    public unsafe void Collect()
    {
        Libc.epoll_event* events = stackalloc Libc.epoll_event[EventsAtOnce];
        lock (_gate)
        {
            int count;
            do
            {
                count = Libc.epoll_wait(Fd.Value, events, EventsAtOnce, 0);
                for (int i = 0; i < count; i++)
                {
                    ref Waiter waiter = ref CollectionsMarshal.GetValueRefOrNullRef(_waiters, events[i].data);
                    if (!Unsafe.IsNullRef(ref waiter) && waiter.IsWanted)
                    {
                        _due += waiter.IsDue ? 0 : 1;
                        waiter.IsWanted = false;
                        waiter.IsDue = true;
                    }
                }
            }
            while (count == EventsAtOnce);
        }
    }

    /// <summary>Takes up to <paramref name="keys"/>.Length of the handles that are due.</summary>
    /// <param name="keys">What the guest's kernel calls them.</param>
    /// <returns>How many.</returns>
    public int TakeDue(Span<ulong> keys)
    {
        lock (_gate)
        {
            int count = 0;
            foreach (ulong handle in _waiters.Keys)
            {
                if (count == keys.Length || _due == 0)
                {
                    break;
                }

                ref Waiter waiter = ref CollectionsMarshal.GetValueRefOrNullRef(_waiters, handle);
                if (waiter.IsDue)
                {
                    waiter.IsDue = false;
                    keys[count++] = waiter.Key;
                    _due--;
                }
            }

            return count;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Fd.Dispose();
        _copyFrom.Dispose();
        _copyTo.Dispose();
    }

    private struct Waiter
    {
        public ulong Key;
        public bool IsWanted;
        public bool IsDue;
    }
}
