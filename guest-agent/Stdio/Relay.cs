using System.Runtime.InteropServices;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Agent.Stdio;

/// <summary>
/// Moves bytes from one descriptor to another on the loop, holding at most one buffer of them: when the destination takes no
/// more, the source is not read. The source's end becomes the destination's: a socket's write side is shut down, a pipe is
/// closed. Owns both descriptors.
/// </summary>
public sealed unsafe class Relay : IEventHandler, IDisposable
{
    private const int BufferSize = 64 << 10;
    // How many buffers one wake-up moves before other descriptors get their turn.
    private const int Burst = 8;
    // Milliseconds between looks at a terminal that nobody has open.
    private const int LongestPause = 100;
    private readonly EventLoop _loop;
    private readonly SafeFd _source;
    private readonly SafeFd _target;
    private readonly bool _targetIsSocket;
    private readonly Func<bool>? _mayReopen;
    private TimerFd? _retry;
    private int _pause = 1;
    private byte* _buffer;
    private int _start;
    private int _end;
    private State _state = State.Reading;

    /// <summary>Starts to relay.</summary>
    /// <param name="loop">The loop, on whose thread this is called.</param>
    /// <param name="source">Non-blocking; taken over.</param>
    /// <param name="target">Non-blocking; taken over.</param>
    /// <param name="targetIsSocket">The target is a socket, whose reader closes it after the end of file.</param>
    /// <param name="mayReopen">
    /// Whether a source that says EIO, a terminal that nobody has open, may be opened again; then it is asked for later. Null: never.
    /// </param>
    public Relay(EventLoop loop, SafeFd source, SafeFd target, bool targetIsSocket, Func<bool>? mayReopen = null)
    {
        ArgumentNullException.ThrowIfNull(loop);
        _loop = loop;
        _source = source;
        _target = target;
        _targetIsSocket = targetIsSocket;
        _mayReopen = mayReopen;
        loop.Add(source, Libc.EPOLLIN, this);
    }

    private enum State
    {
        Reading,
        Writing,
        Paused,
        AwaitingClose,
        Done,
    }

    /// <summary>True when everything has been relayed and both descriptors are closed.</summary>
    public bool IsDone => _state == State.Done;

    /// <inheritdoc/>
    public void OnReady(SafeFd fd, uint events)
    {
        if (_state == State.AwaitingClose)
        {
            Dispose();
            return;
        }

        Resume();
        for (int i = 0; i < Burst && _state is (State.Reading or State.Writing); i++)
        {
            if (_start == _end && !Fill())
            {
                return;
            }

            if (!Flush())
            {
                return;
            }
        }
    }

    /// <summary>Asks a source that nobody had open again, now.</summary>
    public void Resume()
    {
        if (_state == State.Paused)
        {
            _state = State.Reading;
            _loop.Remove(_retry!.Fd);
            _loop.Add(_source, Libc.EPOLLIN, this);
        }
    }

    /// <summary>Stops and closes both ends; what has not been relayed is lost.</summary>
    public void Dispose()
    {
        if (_state == State.Done)
        {
            return;
        }

        _state = State.Done;
        if (!_source.IsClosed)
        {
            _loop.Remove(_source);
        }

        EndTimer();

        _loop.Remove(_target);
        _source.Dispose();
        _target.Dispose();
        NativeMemory.Free(_buffer);
        _buffer = null;
    }

    // False: nothing to write now.
    private bool Fill()
    {
        if (_buffer == null)
        {
            _buffer = (byte*)NativeMemory.Alloc(BufferSize);
        }

        nint n = Libc.read(_source.Value, _buffer, BufferSize);
        if (n > 0)
        {
            (_start, _end, _pause) = (0, (int)n, 1);
            return true;
        }

        if (n < 0 && Check.LastErrno is (Errno.EAGAIN or Errno.EINTR))
        {
            return false;
        }

        if (n < 0 && Check.LastErrno == Errno.EIO && _mayReopen?.Invoke() == true)
        {
            Pause();
            return false;
        }

        // End of file; a pty's master says EIO when the last slave is closed; a reset connection is an end, too.
        EndOfSource();
        return false;
    }

    // False: the target takes no more, or is gone.
    private bool Flush()
    {
        while (_start < _end)
        {
            nint n = Libc.write(_target.Value, _buffer + _start, (nuint)(_end - _start));
            if (n >= 0)
            {
                _start += (int)n;
                continue;
            }

            Errno errno = Check.LastErrno;
            if (errno == Errno.EINTR)
            {
                continue;
            }

            if (errno == Errno.EAGAIN)
            {
                if (_state == State.Reading)
                {
                    _state = State.Writing;
                    _loop.Remove(_source);
                    _loop.Add(_target, Libc.EPOLLOUT, this);
                }

                return false;
            }

            // Nobody reads any more: the writer learns it as it would from a pipe.
            Dispose();
            return false;
        }

        if (_state == State.Writing)
        {
            _state = State.Reading;
            _loop.Remove(_target);
            _loop.Add(_source, Libc.EPOLLIN, this);
        }

        return true;
    }

    /// <summary>A hang-up is reported without end: the source is left alone for a while, longer each time.</summary>
    private void Pause()
    {
        _state = State.Paused;
        _loop.Remove(_source);
        _retry ??= new TimerFd();
        _retry.Set(_pause);
        _pause = Math.Min(_pause * 2, LongestPause);
        _loop.Add(_retry.Fd, Libc.EPOLLIN, this);
    }

    private void EndTimer()
    {
        if (_retry is not null)
        {
            _loop.Remove(_retry.Fd);
            _retry.Dispose();
            _retry = null;
        }
    }

    private void EndOfSource()
    {
        EndTimer();
        if (!_targetIsSocket || Libc.shutdown(_target.Value, Libc.SHUT_WR) < 0)
        {
            Dispose();
            return;
        }

        // Closing a vsock at once would cut off what its reader has not taken yet, so the reader closes first.
        _state = State.AwaitingClose;
        _loop.Remove(_source);
        _source.Dispose();
        NativeMemory.Free(_buffer);
        _buffer = null;
        _loop.Add(_target, Libc.EPOLLRDHUP | Libc.EPOLLHUP, this);
    }
}
