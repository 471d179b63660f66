using System.Buffers.Binary;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Names;

namespace MicroVm.Agent.Names;

/// <summary>
/// One relayed address: a UDP and a TCP socket. They listen on a port of their own, to which a <see cref="NameRedirect"/> leads what
/// is sent to port 53, so that a container's own name server may have that port; without a redirect they listen on port 53.
/// </summary>
internal sealed unsafe class NameEndpoint : IEventHandler, IDisposable
{
    private const int Backlog = 16, PortAttempts = 8, Burst = 32;
    private readonly NameRelay _relay;
    private readonly EventLoop _loop;
    private readonly SafeFd _datagrams;
    private readonly SafeFd _listener;

    // Questions are short: one name fills 512 bytes at most.
    private readonly byte[] _buffer = new byte[4096];

    /// <summary>Starts to listen.</summary>
    /// <exception cref="LinuxException">The address cannot be listened on.</exception>
    internal NameEndpoint(NameRelay relay, EventLoop loop, byte index, uint address, NameRedirect redirect)
    {
        (_relay, _loop, Index) = (relay, loop, index);
        (_datagrams, _listener, ushort port) = Bind(address);
        try
        {
            if (!redirect.TryAdd(address, port))
            {
                _datagrams.Dispose();
                _listener.Dispose();
                _datagrams = Open(Libc.SOCK_DGRAM, address, NameFrame.Port);
                _listener = Open(Libc.SOCK_STREAM, address, NameFrame.Port);
            }

            Check.Result(Libc.listen(_listener.Value, Backlog), "listen", "name service");
            loop.Add(_datagrams, Libc.EPOLLIN, this);
            loop.Add(_listener, Libc.EPOLLIN, this);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Index of its address.</summary>
    internal byte Index { get; }

    /// <summary>Sends an answer to who asked; one that cannot be sent is lost, as datagrams are.</summary>
    internal void Answer((uint Address, ushort Port) client, ReadOnlySpan<byte> message)
    {
        Libc.sockaddr_in to = new() { sin_family = Libc.AF_INET, sin_addr = client.Address, sin_port = client.Port };
        fixed (byte* p = message)
        {
            _ = Libc.sendto(_datagrams.Value, p, (nuint)message.Length, Libc.MSG_DONTWAIT | Libc.MSG_NOSIGNAL, &to, (uint)sizeof(Libc.sockaddr_in));
        }
    }

    /// <inheritdoc/>
    public void OnReady(SafeFd fd, uint events)
    {
        for (int i = 0; i < Burst && !fd.IsClosed && (fd == _listener ? Accept() : Receive()); i++)
        {
        }
    }

    public void Dispose()
    {
        foreach (SafeFd fd in (ReadOnlySpan<SafeFd>)[_datagrams, _listener])
        {
            if (!fd.IsClosed)
            {
                _loop.Remove(fd);
                fd.Dispose();
            }
        }
    }

    private bool Accept()
    {
        int fd = Libc.accept4(_listener.Value, null, null, Libc.SOCK_CLOEXEC | Libc.SOCK_NONBLOCK);
        if (fd < 0)
        {
            return false;
        }

        _relay.Add(new NameConnection(_relay, this, _loop, new SafeFd(fd)));
        return true;
    }

    private bool Receive()
    {
        Libc.sockaddr_in from = default;
        uint length = (uint)sizeof(Libc.sockaddr_in);
        nint n;
        fixed (byte* p = _buffer)
        {
            n = Libc.recvfrom(_datagrams.Value, p, (nuint)_buffer.Length, Libc.MSG_DONTWAIT, &from, &length);
        }

        if (n > 0)
        {
            _ = _relay.TryAsk(this, NameTransport.Datagram, (from.sin_addr, from.sin_port), null, _buffer.AsSpan(0, (int)n));
        }

        return n >= 0;
    }

    /// <summary>Both sockets on one port that is free for both.</summary>
    private static (SafeFd Datagrams, SafeFd Listener, ushort Port) Bind(uint address)
    {
        for (int attempt = 1; ; attempt++)
        {
            SafeFd datagrams = Open(Libc.SOCK_DGRAM, address, 0);
            try
            {
                Libc.sockaddr_in bound;
                uint length = (uint)sizeof(Libc.sockaddr_in);
                Check.Result(Libc.getsockname(datagrams.Value, &bound, &length), "getsockname");
                ushort port = BinaryPrimitives.ReverseEndianness(bound.sin_port);
                return (datagrams, Open(Libc.SOCK_STREAM, address, port), port);
            }
            catch (LinuxException e) when (e.Errno == Errno.EADDRINUSE && attempt < PortAttempts)
            {
                datagrams.Dispose();
            }
            catch
            {
                datagrams.Dispose();
                throw;
            }
        }
    }

    private static SafeFd Open(int type, uint address, ushort port)
    {
        SafeFd fd = SafeFd.From(Libc.socket(Libc.AF_INET, type | Libc.SOCK_CLOEXEC | Libc.SOCK_NONBLOCK, 0), "socket(AF_INET)");
        try
        {
            int yes = 1;
            _ = Libc.setsockopt(fd.Value, Libc.SOL_SOCKET, Libc.SO_REUSEADDR, &yes, sizeof(int));
            Libc.sockaddr_in local = new() { sin_family = Libc.AF_INET, sin_addr = address, sin_port = BinaryPrimitives.ReverseEndianness(port) };
            Check.Result(Libc.bind(fd.Value, &local, (uint)sizeof(Libc.sockaddr_in)), "bind", "name service");
            return fd;
        }
        catch
        {
            fd.Dispose();
            throw;
        }
    }
}
