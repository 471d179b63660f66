using MicroVm.Agent.Rootfs;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;

namespace MicroVm.Agent.Service;

/// <summary>
/// Listening Unix sockets in the guest that stand for the host's: each connection is carried to a vsock port of the host. They
/// live as long as their container, in the agent's own tmpfs, and are bound where it expects them. Loop thread only.
/// </summary>
internal sealed unsafe class GuestSockets(EventLoop loop, FileSystems fileSystems) : IEventHandler
{
    // More at once are closed as they come: the host's side has a bound of its own.
    private const int MaxConnections = 1024;
    private const uint HostCid = 2;
    private readonly Dictionary<int, (SafeFd Listener, uint Port, byte[] Token)> _listeners = [];
    private readonly HashSet<uint> _ports = [];
    private readonly Dictionary<(string Tag, string Export, string Path), uint> _shown = [];
    private readonly SocketBridges _bridges = new(loop, MaxConnections);

    /// <summary>Makes the socket for a port unless there is one.</summary>
    /// <exception cref="SetupException">It cannot be made.</exception>
    internal void Need(HostSocket socket)
    {
        if (_ports.Contains(socket.Port))
        {
            return;
        }

        try
        {
            fileSystems.NeedOwn();
            string path = fileSystems.SocketPathOf(socket.Port);
            SafeFd listener = UnixSocket.Listen(path);
            fixed (byte* p = System.Text.Encoding.UTF8.GetBytes(path + '\0'))
            {
                Check.Result(Libc.fchownat(Libc.AT_FDCWD, p, socket.Uid, socket.Gid, 0), "chown", path);
                Check.Result(Libc.fchmodat(Libc.AT_FDCWD, p, socket.Mode & 0xfff, 0), "chmod", path);
            }

            _listeners.Add(listener.Value, (listener, socket.Port, socket.Token.ToByteArray()));
            loop.Add(listener, Libc.EPOLLIN, this);
            _ports.Add(socket.Port);
        }
        catch (LinuxException e)
        {
            throw new SetupException("making a socket that stands for one of the host", e);
        }
    }

    /// <summary>Makes the socket that is shown at a path of an export, where the host has got one while the container runs.</summary>
    /// <exception cref="SetupException">It cannot be made.</exception>
    internal void Show(MountChange change)
    {
        Need(change.Socket);
        _shown[(change.FsTag, change.Export, change.Path)] = change.Socket.Port;
    }

    /// <summary>
    /// Forgets the socket that <see cref="Show"/> made for a path, where another may be shown from now on. It is dropped by the caller once
    /// the mount at the path is gone.
    /// </summary>
    /// <returns>Its port; null where there is none.</returns>
    internal uint? Forget(MountChange change) =>
        _shown.Remove((change.FsTag, change.Export, change.Path), out uint port) ? port : null;

    /// <summary>Takes away all that are shown in an export, once its container is gone.</summary>
    internal void DropShown(string tag, string export)
    {
        foreach ((var key, uint port) in _shown.Where(s => s.Key.Tag == tag && s.Key.Export == export).ToArray())
        {
            _shown.Remove(key);
            Drop(port);
        }
    }

    /// <summary>Takes the socket for a port away, once its container is gone; connections go on.</summary>
    internal void Drop(uint port)
    {
        if (!_ports.Remove(port))
        {
            return;
        }

        (int number, (SafeFd listener, _, _)) = _listeners.First(l => l.Value.Port == port);
        _listeners.Remove(number);
        loop.Remove(listener);
        listener.Dispose();
        fixed (byte* p = System.Text.Encoding.UTF8.GetBytes(fileSystems.SocketPathOf(port) + '\0'))
        {
            _ = Libc.unlinkat(Libc.AT_FDCWD, p, 0);
        }
    }

    /// <inheritdoc/>
    public void OnReady(SafeFd fd, uint events)
    {
        SafeFd? client;
        while ((client = UnixSocket.TryAccept(fd, out _)) is not null)
        {
            if (_bridges.IsFull)
            {
                client.Dispose();
                continue;
            }

            try
            {
                (_, uint port, byte[] token) = _listeners[fd.Value];
                if (_bridges.Join(client, VsockSocket.StartConnect(HostCid, port), token) is not Errno.OK and var errno)
                {
                    Boot.Log.Warn($"a connection to a socket of the host is not carried: {LinuxException.Text(errno)}");
                }
            }
            catch (LinuxException e)
            {
                client.Dispose();
                Boot.Log.Warn(e.Message);
            }
        }
    }
}
