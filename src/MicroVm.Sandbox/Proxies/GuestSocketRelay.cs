using System.Collections.Concurrent;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.Vm;
using MicroVm.Ttrpc;
using MicroVm.VmmControl;

namespace MicroVm.Sandbox.Proxies;

/// <summary>
/// Listens on the host in place of sockets that containers make in folders shared with <c>host-sockets</c>, on a thread of its own. The
/// VMM gives a name to a socket that this process lends it (<see cref="SocketNotice"/>), as the guest's user and where that may make
/// files: this process touches no path. A connection is carried to the guest's socket by vsock.
/// </summary>
internal sealed unsafe class GuestSocketRelay : IEventHandler, IDisposable
{
    // How many sockets wait at the VMM for a name: a guest that makes more at once than are lent to it meanwhile has them to itself.
    private const int Ahead = 32;
    private const int MaxConnections = 256, Backlog = 128;

    // A program binds its socket before it listens: for so long a connection is offered again.
    private const int RetryMilliseconds = 100, MaxTries = 20, EndMilliseconds = 2000;
    private readonly EventLoop _loop = new();
    private readonly Slot?[] _slots = new Slot?[SocketNotice.MaxSlots];
    private readonly Dictionary<int, int> _listeners = [];
    private readonly ConcurrentDictionary<FileIdentity, int> _inodes = [];
    private readonly SocketBridges _bridges;
    private readonly List<Waiting> _waiting = [];
    private readonly SafeFd _channel;
    private readonly string _vsockPath;
    private readonly AgentClient _agent;
    private readonly Thread _thread;
    private int _lent;
    private volatile bool _ending;

    /// <summary>Starts to lend sockets.</summary>
    /// <param name="channel">This side's end of the channel; borrowed.</param>
    /// <param name="vsockPath">The VM's vsock socket.</param>
    /// <param name="agent">Connects to the sockets in the guest.</param>
    internal GuestSocketRelay(SafeFd channel, string vsockPath, AgentClient agent)
    {
        (_channel, _vsockPath, _agent) = (channel, vsockPath, agent);
        _bridges = new SocketBridges(_loop, MaxConnections);
        _loop.Add(channel, Libc.EPOLLIN, this);
        Lend();
        _thread = new Thread(Run, 512 << 10) { IsBackground = true, Name = "guest sockets" };
        _thread.Start();
    }

    /// <summary>Whether this process listens on a socket's inode in a container's place. Any thread.</summary>
    internal bool Owns(in Libc.statx_t stat) => _inodes.ContainsKey(FileIdentity.Of(stat));

    /// <summary>Carries out what the VMM has told by now: of an export that it took out, nothing is held any more.</summary>
    internal void Settle()
    {
        if (!_ending)
        {
            _loop.Invoke(ReadNotices);
        }
    }

    /// <inheritdoc/>
    public void OnReady(SafeFd fd, uint events)
    {
        if (fd == _channel)
        {
            ReadNotices();
            if ((events & (Libc.EPOLLHUP | Libc.EPOLLERR)) != 0)
            {
                _loop.Remove(_channel);
            }

            return;
        }

        SafeFd? client;
        while (_listeners.TryGetValue(fd.Value, out int slot) && (client = UnixSocket.TryAccept(fd, out _)) is not null)
        {
            if (_bridges.Count + _waiting.Count >= MaxConnections)
            {
                client.Dispose();
                continue;
            }

            Connect(new Waiting(client, _slots[slot]!, 0));
        }
    }

    public void Dispose()
    {
        _ending = true;
        _loop.Stop();

        // A call to the guest may be under way, which ends with the agent's connection.
        if (!_thread.Join(EndMilliseconds))
        {
            return;
        }

        _bridges.CloseAll();
        _waiting.ForEach(w => w.Client.Dispose());
        foreach (Slot? slot in _slots)
        {
            slot?.Socket.Dispose();
        }

        _loop.Dispose();
    }

    private void Run()
    {
        _loop.Claim();
        while (!_ending)
        {
            _ = _loop.RunOnce(_waiting.Count > 0 ? RetryMilliseconds : -1);
            Waiting[] again = [.. _waiting.Where(w => w.At <= Environment.TickCount64)];
            foreach (Waiting waiting in again)
            {
                _waiting.Remove(waiting);
                Connect(waiting);
            }
        }
    }

    /// <summary>Has sockets ready at the VMM, for as many as the guest may have.</summary>
    private void Lend()
    {
        for (uint i = 0; _lent < Ahead && i < _slots.Length; i++)
        {
            if (_slots[i] is not null)
            {
                continue;
            }

            SafeFd socket = SafeFd.From(Libc.socket(Libc.AF_UNIX, Libc.SOCK_STREAM | Libc.SOCK_CLOEXEC | Libc.SOCK_NONBLOCK, 0), "socket(AF_UNIX)");
            SocketNotice notice = new() { Kind = SocketNoticeKind.Lent, Slot = i };
            try
            {
                FdSender.Send(_channel, new ReadOnlySpan<byte>(&notice, sizeof(SocketNotice)), [socket]);
            }
            catch (LinuxException)
            {
                // The VMM is gone.
                socket.Dispose();
                return;
            }

            _slots[i] = new Slot(socket);
            _lent++;
        }
    }

    private void ReadNotices()
    {
        SocketNotice notice;
        while (Libc.recv(_channel.Value, &notice, (nuint)sizeof(SocketNotice), Libc.MSG_DONTWAIT) == sizeof(SocketNotice))
        {
            if (notice.Slot >= _slots.Length || _slots[notice.Slot] is not { } slot)
            {
                continue;
            }

            if (notice.Kind == SocketNoticeKind.Bound && !slot.IsBound)
            {
                Listen(slot, notice);
            }
            else if (notice.Kind == SocketNoticeKind.Released)
            {
                Close((int)notice.Slot, slot);
            }
        }

        Lend();
    }

    private void Listen(Slot slot, in SocketNotice notice)
    {
        (slot.IsBound, slot.Node) = (true, notice.Node);
        slot.Key = new FileIdentity(notice.Inode, notice.DeviceMajor, notice.DeviceMinor);
        _lent--;

        // Known before anybody can connect: the follower of the host's sockets must not take it for one.
        _inodes[slot.Key] = (int)notice.Slot;
        if (Libc.listen(slot.Socket.Value, Backlog) == 0)
        {
            _listeners[slot.Socket.Value] = (int)notice.Slot;
            _loop.Add(slot.Socket, Libc.EPOLLIN, this);
        }
    }

    private void Close(int number, Slot slot)
    {
        if (_listeners.Remove(slot.Socket.Value))
        {
            _loop.Remove(slot.Socket);
        }

        if (slot.IsBound)
        {
            _inodes.TryRemove(new KeyValuePair<FileIdentity, int>(slot.Key, number));
        }
        else
        {
            _lent--;
        }

        slot.Socket.Dispose();
        _slots[number] = null;
    }

    private void Connect(Waiting waiting)
    {
        SafeFd stream;
        try
        {
            Libc.ucred peer;
            uint length = (uint)sizeof(Libc.ucred);
            Check.Result(Libc.getsockopt(waiting.Client.Value, Libc.SOL_SOCKET, Libc.SO_PEERCRED, &peer, &length), "getsockopt(SO_PEERCRED)");
            ConnectSocketRequest request = new() { FsTag = Export.Tag, Node = waiting.Slot.Node, Uid = peer.uid, Gid = peer.gid };
            stream = GuestStream.Open(_vsockPath, number =>
            {
                request.Stream = number;
                _ = _agent.ConnectSocket(request);
            });
        }
        catch (Exception e) when (e is LinuxException or TtrpcException)
        {
            if (e is TtrpcException { Code: StatusCode.FailedPrecondition } && waiting.Tries < MaxTries)
            {
                _waiting.Add(waiting with { Tries = waiting.Tries + 1, At = Environment.TickCount64 + RetryMilliseconds });
            }
            else
            {
                // The host's program sees its connection end at once, as from a daemon that is not there.
                waiting.Client.Dispose();
            }

            return;
        }

        _ = _bridges.Join(waiting.Client, stream);
    }

    /// <summary>A socket that the VMM has, or has given a name to.</summary>
    private sealed record Slot(SafeFd Socket)
    {
        public bool IsBound { get; set; }

        public ulong Node { get; set; }

        public FileIdentity Key { get; set; }
    }

    /// <summary>A connection that nobody in the guest has taken yet.</summary>
    private sealed record Waiting(SafeFd Client, Slot Slot, long At)
    {
        public int Tries { get; init; }
    }
}
