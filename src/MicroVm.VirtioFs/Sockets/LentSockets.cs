using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.HostFiles;
using MicroVm.VmmControl;

namespace MicroVm.VirtioFs.Sockets;

/// <summary>
/// Unix sockets that the sandbox process lends without a name (<see cref="SocketNotice"/>). Where the guest makes a socket, one of them
/// is bound, so that the sandbox process can listen on the name and carry connections to the guest. This process can neither make nor
/// listen on one, and keeps none.
/// </summary>
internal sealed class LentSockets : IDisposable
{
    // Ten digits, a slash, and the NUL of the longest name that an address holds.
    private const int PathLength = 108;

    // For the next socket to be lent, while the guest has not all that it may have.
    private const int WaitMilliseconds = 200;
    private readonly Lock _lock = new();
    private readonly SafeFd _channel;
    private readonly ulong[] _nodes = new ulong[SocketNotice.MaxSlots];
    private readonly List<SafeFd> _received = [];
    private SafeFd? _socket;
    private uint _slot;

    /// <summary>Takes over the VMM's end of the channel.</summary>
    public LentSockets(SafeFd channel) => _channel = channel;

    /// <summary>Has a socket at hand for a name; the request thread's alone, as <see cref="Bind"/> and <see cref="Announce"/>.</summary>
    /// <returns>False: none is lent now, or the name is too long for an address.</returns>
    // Safe: the path has PathLength bytes, which TryFormat does not exceed.
    public unsafe bool TryTake(int folder, byte* name)
    {
        byte* path = stackalloc byte[PathLength];
        if (!TryFormat(folder, name, path, out _))
        {
            return false;
        }

        if (_socket is null && !TryReceive() && HasRoom())
        {
            Libc.pollfd poll = new() { fd = _channel.Value, events = Libc.POLLIN };
            return Libc.poll(&poll, 1, WaitMilliseconds) > 0 && TryReceive();
        }

        return _socket is not null;
    }

    /// <summary>Binds the socket at hand, as the user that the thread is now, with the mode that its umask leaves of 0777.</summary>
    /// <returns>0, or a negative errno; the socket then is at hand still.</returns>
    // Safe: sun_path has PathLength bytes, which TryFormat does not exceed.
    public unsafe int Bind(int folder, byte* name)
    {
        Libc.sockaddr_un address = new() { sun_family = Libc.AF_UNIX };
        _ = TryFormat(folder, name, address.sun_path, out int length);
        if (Libc.bind(_socket!.Value, &address, (uint)(sizeof(ushort) + length + 1)) == 0)
        {
            return 0;
        }

        Errno errno = Check.LastErrno;
        return -(int)(errno == Errno.EADDRINUSE ? Errno.EEXIST : errno);
    }

    /// <summary>Tells the sandbox process of the socket that was bound last.</summary>
    /// <param name="folder">Where its name is.</param>
    /// <param name="name">Its name.</param>
    /// <param name="node">Its node id; 0 when the name is gone already.</param>
    // Safe: the name ends in a NUL and stays for the request; it is only read.
    public unsafe void Announce(int folder, byte* name, ulong node)
    {
        _socket!.Dispose();
        _socket = null;
        Libc.statx_t stat;
        if (node == 0 || Libc.statx(folder, name, Libc.AT_SYMLINK_NOFOLLOW, Libc.STATX_INO, &stat) != 0)
        {
            Send(new SocketNotice { Kind = SocketNoticeKind.Released, Slot = _slot });
            return;
        }

        lock (_lock)
        {
            _nodes[_slot] = node;
        }

        Send(new SocketNotice
        {
            Kind = SocketNoticeKind.Bound,
            Slot = _slot,
            Node = node,
            Inode = stat.stx_ino,
            DeviceMajor = stat.stx_dev_major,
            DeviceMinor = stat.stx_dev_minor,
        });
    }

    /// <summary>The guest knows an inode no more: whoever connects to it finds nobody. Any thread.</summary>
    public void Release(ulong node)
    {
        int slot;
        lock (_lock)
        {
            slot = Array.IndexOf(_nodes, node);
            if (slot < 0)
            {
                return;
            }

            _nodes[slot] = 0;
        }

        Send(new SocketNotice { Kind = SocketNoticeKind.Released, Slot = (uint)slot });
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _socket?.Dispose();
        _channel.Dispose();
    }

    /// <summary>The name by way of /proc/self/fd, which is a file-serving thread's working directory.</summary>
    // Safe: the name ends in a NUL; what is written ends with PathLength.
    private static unsafe bool TryFormat(int folder, byte* name, byte* path, out int length)
    {
        ProcFd.Format(folder, path);
        length = 0;
        while (path[length] != 0)
        {
            length++;
        }

        path[length++] = (byte)'/';
        while (*name != 0 && length < PathLength - 1)
        {
            path[length++] = *name++;
        }

        path[length] = 0;
        return *name == 0;
    }

    private bool HasRoom()
    {
        lock (_lock)
        {
            return _nodes.AsSpan().Contains(0UL);
        }
    }

    // Safe: the notice is a local, written in its length.
    private unsafe bool TryReceive()
    {
        SocketNotice notice;
        int n = FdReceiver.Receive(_channel, new Span<byte>(&notice, sizeof(SocketNotice)), _received, out _);
        if (n == sizeof(SocketNotice) && notice.Kind == SocketNoticeKind.Lent && notice.Slot < SocketNotice.MaxSlots && _received.Count == 1)
        {
            (_socket, _slot) = (_received[0], notice.Slot);
            _received.Clear();
        }

        _received.ForEach(f => f.Dispose());
        _received.Clear();
        return _socket is not null;
    }

    // As many notices as there are sockets fit into the channel.
    // Safe: the notice is pinned while the kernel reads it.
    private unsafe void Send(in SocketNotice notice)
    {
        fixed (SocketNotice* p = &notice)
        {
            _ = Libc.write(_channel.Value, p, (nuint)sizeof(SocketNotice));
        }
    }
}
