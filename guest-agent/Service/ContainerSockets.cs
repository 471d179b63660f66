using System.Text;
using MicroVm.Agent.Rootfs;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Agent.Service;

/// <summary>
/// Connects the host to sockets that containers made in shared folders. A socket is named by its virtio-fs node, whatever its name
/// is now and whichever container's mounts show it; the kernel has the inode of every socket that is bound. Loop thread only.
/// </summary>
internal sealed unsafe class ContainerSockets(EventLoop loop, FileSystems fileSystems)
{
    // The host's side has a bound of its own.
    private const int MaxConnections = 1024;
    private const uint Unchanged = uint.MaxValue;
    private readonly SocketBridges _bridges = new(loop, MaxConnections);

    /// <summary>Connects a stream to a socket, as a process of this user and group; takes the stream over, also when this throws.</summary>
    /// <returns>0; ECONNREFUSED or EAGAIN when nobody takes the connection now, ESTALE when the inode is gone.</returns>
    /// <exception cref="SetupException">The tag is malformed.</exception>
    internal Errno Connect(SafeFd stream, string tag, ulong node, uint uid, uint gid)
    {
        SafeFd? socket = null;
        Errno errno = Errno.EAGAIN;
        if (!_bridges.IsFull)
        {
            using SafeFd? file = fileSystems.OpenNode(tag, node);
            errno = Errno.ESTALE;
            if (file is not null)
            {
                socket = ConnectAs(Encoding.ASCII.GetBytes(MountCalls.PathOf(file)), uid, gid, out errno);
            }
        }

        if (socket is null)
        {
            stream.Dispose();
            return errno;
        }

        return _bridges.Join(stream, socket);
    }

    // The listener asks who its peer is (SO_PEERCRED): the host's process, which the host's kernel has let connect. Capabilities stay, since
    // its groups are not known here. Only this thread changes its user.
    private static SafeFd? ConnectAs(ReadOnlySpan<byte> path, uint uid, uint gid, out Errno errno)
    {
        Libc.__user_cap_header_struct header = new() { version = Libc._LINUX_CAPABILITY_VERSION_3 };
        Libc.__user_cap_data_struct* sets = stackalloc Libc.__user_cap_data_struct[2];
        uint ownUser = Libc.geteuid(), ownGroup = Libc.getegid();
        if ((uid == ownUser && gid == ownGroup) || uid == uint.MaxValue || gid == uint.MaxValue || Libc.capget(&header, sets) != 0)
        {
            return UnixSocket.TryConnect(path, out errno);
        }

        _ = Libc.thread_setresgid(Unchanged, gid, Unchanged);
        _ = Libc.thread_setresuid(Unchanged, uid, Unchanged);
        _ = Libc.capset(&header, sets);
        SafeFd? socket = UnixSocket.TryConnect(path, out errno);
        _ = Libc.thread_setresuid(Unchanged, ownUser, Unchanged);
        _ = Libc.thread_setresgid(Unchanged, ownGroup, Unchanged);
        _ = Libc.capset(&header, sets);
        return socket;
    }
}
