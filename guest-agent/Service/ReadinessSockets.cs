using Google.Protobuf;
using MicroVm.Agent.Rootfs;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Agent.Service;

/// <summary>
/// Sockets on which a container's processes say that they are ready (sd_notify(3)). As runc does, the first line of the first datagram that
/// begins with READY= is kept, and what else is said is dropped. They live as long as the VM. Loop thread only.
/// </summary>
internal sealed unsafe class ReadinessSockets(EventLoop loop, FileSystems fileSystems) : IEventHandler
{
    private const int MaxDatagram = 4096;
    private readonly Dictionary<uint, Notice> _notices = [];

    /// <summary>Makes the socket of a port unless there is one.</summary>
    /// <exception cref="SetupException">It cannot be made.</exception>
    internal void Need(HostSocket socket)
    {
        if (_notices.ContainsKey(socket.Port))
        {
            return;
        }

        try
        {
            fileSystems.NeedOwn();
            string path = fileSystems.SocketPathOf(socket.Port);
            SafeFd fd = UnixDatagram.Bind(path);
            _notices.Add(socket.Port, new Notice(fd));
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
    /// <exception cref="TtrpcException">There is no such socket.</exception>
    internal void Await(uint port, TtrpcCall call)
    {
        if (!_notices.TryGetValue(port, out Notice? notice))
        {
            throw new TtrpcException(StatusCode.NotFound, "the container has no socket of readiness notices");
        }

        if (notice.Line is { } line)
        {
            call.Complete(new ReadinessNotice { Line = line });
            return;
        }

        notice.Waiters.RemoveAll(c => c.IsOver);
        notice.Waiters.Add(call);
    }

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

    private sealed class Notice(SafeFd socket)
    {
        internal SafeFd Socket => socket;

        internal ByteString? Line { get; set; }

        internal List<TtrpcCall> Waiters { get; } = [];
    }
}
