using Google.Protobuf;
using MicroVm.Agent.Rootfs;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Agent.Service;

/// <summary>
/// Sockets on which a container's processes say that they are ready (sd_notify(3)). As runc does, the first line of the first datagram that
/// begins with READY= is kept, and what else is said is dropped. Each container has one of its own. Loop thread only.
/// </summary>
internal sealed unsafe class ReadinessSockets(EventLoop loop, FileSystems fileSystems) : IEventHandler
{
    private const int MaxDatagram = 4096;

    // Above the ports of the host's sockets, beside which the sockets' names are.
    private const uint FirstName = 0xFFFF_0000;
    private readonly Dictionary<string, Notice> _notices = [];
    private uint _made;

    /// <summary>Makes a container's socket, and puts its name into <paramref name="socket"/>.</summary>
    /// <exception cref="SetupException">It cannot be made.</exception>
    internal void Need(string containerId, HostSocket socket)
    {
        try
        {
            fileSystems.NeedOwn();
            socket.Port = FirstName + (_made++ & 0xFFFF);
            string path = fileSystems.SocketPathOf(socket.Port);
            SafeFd fd = UnixDatagram.Bind(path);
            _notices[containerId] = new Notice(fd, path);
            loop.Add(fd, Libc.EPOLLIN, this);
            fixed (byte* p = System.Text.Encoding.UTF8.GetBytes(path + '\0'))
            {
                Check.Result(Libc.fchmodat(Libc.AT_FDCWD, p, socket.Mode & 0xfff, 0), "chmod", path);
            }
        }
        catch (LinuxException e)
        {
            throw new SetupException("making the socket of readiness notices", e);
        }
    }

    /// <summary>Answers a call once there is a notice.</summary>
    /// <exception cref="TtrpcException">There is no such socket, or the container has ended without a notice.</exception>
    internal void Await(string containerId, bool alive, TtrpcCall call)
    {
        if (!_notices.TryGetValue(containerId, out Notice? notice))
        {
            throw alive ? new TtrpcException(StatusCode.NotFound, "the container has no socket of readiness notices") : Ended;
        }

        if (notice.Line is { } line)
        {
            call.Complete(new ReadinessNotice { Line = line });
            return;
        }

        if (!alive)
        {
            throw Ended;
        }

        notice.Waiters.RemoveAll(c => c.IsOver);
        notice.Waiters.Add(call);
    }

    /// <summary>A container's init has ended: what it said last is looked at, and nobody waits for more.</summary>
    internal void End(string containerId)
    {
        if (_notices.TryGetValue(containerId, out Notice? notice))
        {
            OnReady(notice.Socket, Libc.EPOLLIN);
            notice.Waiters.ForEach(c => c.Fail(Ended.Code, Ended.Message));
            notice.Waiters.Clear();
        }
    }

    /// <summary>Takes a container's socket away, if it has one.</summary>
    internal void Drop(string containerId)
    {
        End(containerId);
        if (_notices.Remove(containerId, out Notice? notice))
        {
            loop.Remove(notice.Socket);
            notice.Socket.Dispose();
            fixed (byte* p = System.Text.Encoding.UTF8.GetBytes(notice.Path + '\0'))
            {
                _ = Libc.unlinkat(Libc.AT_FDCWD, p, 0);
            }
        }
    }

    private static TtrpcException Ended => new(StatusCode.FailedPrecondition, "the container has ended without a notice of readiness");

    /// <inheritdoc/>
    public void OnReady(SafeFd fd, uint events)
    {
        Notice notice = _notices.Values.First(n => n.Socket == fd);
        Span<byte> buffer = stackalloc byte[MaxDatagram];
        while (UnixDatagram.Receive(fd, buffer) is { } length)
        {
            ReadOnlySpan<byte> datagram = buffer[..length];
            if (notice.Line is not null || !datagram.StartsWith("READY="u8))
            {
                continue;
            }

            int end = datagram.IndexOf((byte)'\n');
            notice.Line = ByteString.CopyFrom(end < 0 ? datagram : datagram[..end]);
            notice.Waiters.ForEach(c => c.Complete(new ReadinessNotice { Line = notice.Line }));
            notice.Waiters.Clear();
        }
    }

    private sealed class Notice(SafeFd socket, string path)
    {
        internal SafeFd Socket => socket;

        internal string Path => path;

        internal ByteString? Line { get; set; }

        internal List<TtrpcCall> Waiters { get; } = [];
    }
}
