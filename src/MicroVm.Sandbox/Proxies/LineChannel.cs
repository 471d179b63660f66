using System.Text.Json;
using MicroVm.Json;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Sandbox.State;

namespace MicroVm.Sandbox.Proxies;

/// <summary>Lines of JSON on a stream socket between processes of this runtime; owns the descriptor. One reader, any writers.</summary>
internal sealed unsafe class LineChannel : IDisposable
{
    private const int MaxLine = 8 << 20;
    private readonly SafeFd _fd;
    private readonly Lock _write = new();
    private byte[] _buffer = new byte[4096];
    private int _start;
    private int _end;

    internal LineChannel(SafeFd fd) => _fd = fd;

    /// <summary>Sends a line; false when the other side is gone, or the channel was closed here.</summary>
    internal bool Send<T>(T message)
        where T : class, IJsonDocument<T>
    {
        try
        {
            return SendLine(message);
        }
        catch (ObjectDisposedException)
        {
            return false;
        }
    }

    /// <summary>The next line; null when the other side is gone, sent no JSON, or <paramref name="timeout"/> is over.</summary>
    internal T? Receive<T>(TimeSpan? timeout = null)
        where T : class, IJsonDocument<T>
    {
        try
        {
            return ReceiveLine<T>(timeout);
        }
        catch (ObjectDisposedException)
        {
            return null;
        }
    }

    /// <summary>
    /// Ends the connection for both sides, at once: closing does not as long as a thread waits in <see cref="Receive"/>, whose result is then
    /// null. The descriptor stays to be closed.
    /// </summary>
    internal void HangUp()
    {
        if (!_fd.IsClosed)
        {
            _ = Libc.shutdown(_fd.Value, Libc.SHUT_RDWR);
        }
    }

    /// <summary>Gives the socket up, from which nothing more was read than the lines that were received.</summary>
    internal SafeFd Release() => _start == _end ? new SafeFd(_fd.Release()) : throw new SandboxException("more was sent than asked for");

    public void Dispose() => _fd.Dispose();

    private bool SendLine<T>(T message)
        where T : class, IJsonDocument<T>
    {
        byte[] line = [.. JsonRecords.Write(message), (byte)'\n'];
        lock (_write)
        {
            int sent = 0;
            fixed (byte* p = line)
            {
                while (sent < line.Length)
                {
                    nint n = Libc.send(_fd.Value, p + sent, (nuint)(line.Length - sent), Libc.MSG_NOSIGNAL);
                    if (n >= 0)
                    {
                        sent += (int)n;
                    }
                    else if (Check.LastErrno == Errno.EAGAIN)
                    {
                        Wait(Libc.POLLOUT, -1);
                    }
                    else if (Check.LastErrno != Errno.EINTR)
                    {
                        return false;
                    }
                }
            }
        }

        return true;
    }

    private T? ReceiveLine<T>(TimeSpan? timeout)
        where T : class, IJsonDocument<T>
    {
        long deadline = timeout is null ? long.MaxValue : Environment.TickCount64 + (long)timeout.Value.TotalMilliseconds;
        while (true)
        {
            int newline = _buffer.AsSpan(_start, _end - _start).IndexOf((byte)'\n');
            if (newline >= 0)
            {
                ReadOnlySpan<byte> line = _buffer.AsSpan(_start, newline);
                _start += newline + 1;
                try
                {
                    return JsonRecords.Read<T>(line);
                }
                catch (JsonException)
                {
                    return null;
                }
            }

            if (!Fill(deadline))
            {
                return null;
            }
        }
    }

    private bool Fill(long deadline)
    {
        if (_start > 0)
        {
            _buffer.AsSpan(_start, _end - _start).CopyTo(_buffer);
            (_start, _end) = (0, _end - _start);
        }

        if (_end == _buffer.Length)
        {
            if (_buffer.Length >= MaxLine)
            {
                return false;
            }

            Array.Resize(ref _buffer, _buffer.Length * 2);
        }

        while (true)
        {
            long left = deadline == long.MaxValue ? -1 : Math.Clamp(deadline - Environment.TickCount64, 0, int.MaxValue);
            if (!Wait(Libc.POLLIN, (int)left))
            {
                return false;
            }

            nint n;
            fixed (byte* p = _buffer)
            {
                n = Libc.recv(_fd.Value, p + _end, (nuint)(_buffer.Length - _end), Libc.MSG_DONTWAIT);
            }

            if (n > 0)
            {
                _end += (int)n;
                return true;
            }

            if (n == 0 || Check.LastErrno is not (Errno.EINTR or Errno.EAGAIN))
            {
                return false;
            }
        }
    }

    private bool Wait(short events, int milliseconds)
    {
        Libc.pollfd pfd = new() { fd = _fd.Value, events = events };
        int result;
        do
        {
            result = Libc.poll(&pfd, 1, milliseconds);
        }
        while (Check.Retry(result));
        return result > 0;
    }
}
