using System.Security.Cryptography;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Sandbox.Proxies;

/// <summary>A connection of the guest that has not shown yet that it is the agent's: it must begin with a token. On an <see cref="EventLoop"/>.</summary>
internal sealed unsafe class SocketStranger : IEventHandler, IDisposable
{
    private readonly EventLoop _loop;
    private readonly SafeFd _socket;
    private readonly byte[] _token;
    private readonly byte[] _received;
    private readonly Action<SafeFd> _known;
    private readonly Action<SocketStranger> _ended;
    private int _count;
    private bool _over;

    /// <summary>For a connection.</summary>
    /// <param name="loop">The loop; this is called on its thread.</param>
    /// <param name="socket">Non-blocking; owned.</param>
    /// <param name="token">What it must begin with.</param>
    /// <param name="known">Takes the connection once it did.</param>
    /// <param name="ended">Called once, before that or when the connection is closed.</param>
    internal SocketStranger(EventLoop loop, SafeFd socket, byte[] token, Action<SafeFd> known, Action<SocketStranger> ended)
    {
        (_loop, _socket, _token, _known, _ended) = (loop, socket, token, known, ended);
        _received = new byte[token.Length];
    }

    /// <summary>Looks at what has come, and waits for the rest.</summary>
    internal void Begin()
    {
        try
        {
            _loop.Add(_socket, Libc.EPOLLIN, this);
            OnReady(_socket, Libc.EPOLLIN);
        }
        catch (LinuxException)
        {
            Dispose();
        }
    }

    /// <inheritdoc/>
    public void OnReady(SafeFd fd, uint events)
    {
        if (_over)
        {
            return;
        }

        nint n;
        fixed (byte* p = _received)
        {
            n = Libc.read(_socket.Value, p + _count, (nuint)(_received.Length - _count));
        }

        if (n < 0 && Check.LastErrno is Errno.EAGAIN or Errno.EINTR)
        {
            return;
        }

        _count += (int)Math.Max(0, n);
        if (n > 0 && _count < _received.Length)
        {
            return;
        }

        if (n <= 0 || !CryptographicOperations.FixedTimeEquals(_received, _token))
        {
            Dispose();
            return;
        }

        End();
        _known(_socket);
    }

    /// <summary>Closes the connection, unless it is known.</summary>
    public void Dispose()
    {
        if (!_over)
        {
            End();
            _socket.Dispose();
        }
    }

    private void End()
    {
        _over = true;
        _loop.Remove(_socket);
        _ended(this);
    }
}
