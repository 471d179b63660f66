using System.Text.Json;
using MicroVm.Json;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VmmControl;
using MicroVm.VmmControl.Reading;

namespace MicroVm.Vmm.Control;

/// <summary>
/// One client of the control socket: requests and responses, a JSON object a line, strictly in turn. Owns the socket.
/// Device thread only.
/// </summary>
internal sealed unsafe class ControlConnection : IEventHandler, IDisposable
{
    private const int LongestLine = 64 << 10;
    private const int MaxWaitingFds = 32;
    private readonly SafeFd _socket;
    private readonly EventLoop _loop;
    private readonly ControlOperations _operations;
    private readonly Action<ControlConnection> _onClosed;
    private readonly List<SafeFd> _fds = [];
    private byte[] _input = new byte[4096];
    private int _count;
    private byte[] _output = [];
    private int _sent;
    private bool _busy;
    private bool _processing;
    private bool _closed;

    public ControlConnection(SafeFd socket, EventLoop loop, ControlOperations operations, Action<ControlConnection> onClosed)
    {
        _socket = socket;
        _loop = loop;
        _operations = operations;
        _onClosed = onClosed;
        loop.Add(socket, Libc.EPOLLIN, this);
    }

    public void OnReady(SafeFd fd, uint events)
    {
        if ((events & Libc.EPOLLOUT) != 0)
        {
            Send();
        }
        else if (_sent < _output.Length || _busy)
        {
            // Hung up while an answer is due: nobody will read it.
            Close();
            return;
        }
        else
        {
            Receive();
        }

        ProcessLines();
    }

    public void Dispose()
    {
        if (!_closed)
        {
            _closed = true;
            _loop.Remove(_socket);
            _socket.Dispose();
            DropFds();
        }
    }

    private void Receive()
    {
        if (_count == _input.Length)
        {
            Array.Resize(ref _input, Math.Min(_input.Length * 2, LongestLine));
        }

        int n = FdReceiver.Receive(_socket, _input.AsSpan(_count), _fds, out Errno errno);
        if (n > 0 && _fds.Count <= MaxWaitingFds)
        {
            _count += n;
        }
        else if (n >= 0 || errno != Errno.EAGAIN)
        {
            Close();
        }
    }

    private void ProcessLines()
    {
        // An answer that comes at once calls back into here; the outer call then goes on.
        if (_processing)
        {
            return;
        }

        _processing = true;
        while (!_closed && !_busy && _sent == _output.Length)
        {
            int end = _input.AsSpan(0, _count).IndexOf((byte)'\n');
            if (end < 0)
            {
                if (_count == LongestLine)
                {
                    Close();
                }
                else if (_count == 0)
                {
                    DropFds();
                }

                break;
            }

            Execute(_input.AsSpan(0, end));
            _input.AsSpan(end + 1, _count - end - 1).CopyTo(_input);
            _count -= end + 1;
        }

        _processing = false;
        UpdateWatch();
    }

    private void Execute(ReadOnlySpan<byte> line)
    {
        if (line.Trim(" \t\r"u8).IsEmpty)
        {
            return;
        }

        _busy = true;
        ControlRequest? request;
        try
        {
            request = ConfigDocument.Request.Read(line);
        }
        catch (JsonException e)
        {
            Answer(new ControlResponse { Error = $"not a request: {JsonErrors.Describe(e)}" });
            return;
        }

        if (request is null)
        {
            Answer(new ControlResponse { Error = "not a request: null" });
            return;
        }

        _operations.Execute(request, TakeFd, Answer);
    }

    private void Answer(ControlResponse response)
    {
        if (_closed)
        {
            return;
        }

        _busy = false;
        _output = [.. JsonRecords.Write(response), (byte)'\n'];
        _sent = 0;
        Send();
        ProcessLines();
    }

    private void Send()
    {
        fixed (byte* p = _output)
        {
            while (_sent < _output.Length)
            {
                nint n = Libc.send(_socket.Value, p + _sent, (nuint)(_output.Length - _sent), Libc.MSG_DONTWAIT | Libc.MSG_NOSIGNAL);
                if (n >= 0)
                {
                    _sent += (int)n;
                }
                else if (Check.LastErrno == Errno.EAGAIN)
                {
                    return;
                }
                else if (Check.LastErrno != Errno.EINTR)
                {
                    Close();
                    return;
                }
            }
        }
    }

    private void UpdateWatch()
    {
        if (!_closed)
        {
            _loop.Modify(_socket, _sent < _output.Length ? Libc.EPOLLOUT : _busy ? 0 : Libc.EPOLLIN);
        }
    }

    private SafeFd? TakeFd()
    {
        if (_fds.Count == 0)
        {
            return null;
        }

        SafeFd fd = _fds[0];
        _fds.RemoveAt(0);
        return fd;
    }

    private void DropFds()
    {
        foreach (SafeFd fd in _fds)
        {
            fd.Dispose();
        }

        _fds.Clear();
    }

    private void Close()
    {
        Dispose();
        _onClosed(this);
    }
}
