using Google.Protobuf;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Ttrpc;

/// <summary>A client's connection: decodes requests, runs handlers, sends answers; owns its descriptor.</summary>
internal sealed unsafe class ServerConnection : IEventHandler
{
    // A client that asks and never reads is cut off rather than buffered for without bound.
    private const long MaxQueuedBytes = 32L << 20;
    private const int MaxOpenCalls = 4096;
    private readonly TtrpcServer _server;
    private readonly EventLoop _loop;
    private readonly SafeFd _fd;
    private readonly FrameDecoder _decoder = new();
    private readonly HashSet<uint> _open = [];
    private readonly Queue<byte[]> _out = new();
    private int _outOffset;
    private long _queuedBytes;
    private bool _waitsForWrite;
    private bool _inputEnded;

    internal ServerConnection(TtrpcServer server, EventLoop loop, SafeFd fd)
    {
        _server = server;
        _loop = loop;
        _fd = fd;
    }

    internal bool IsClosed { get; private set; }

    internal void Start() => _loop.Add(_fd, Libc.EPOLLIN, this);

    public void OnReady(SafeFd fd, uint events)
    {
        if ((events & Libc.EPOLLOUT) != 0)
        {
            Flush();
        }

        if (!IsClosed && !_inputEnded && (events & (Libc.EPOLLIN | Libc.EPOLLHUP | Libc.EPOLLERR)) != 0)
        {
            Receive();
        }
        else if (!IsClosed && (events & (Libc.EPOLLHUP | Libc.EPOLLERR)) != 0)
        {
            Close();
        }
    }

    internal void Answer(uint streamId, byte[] frame)
    {
        if (IsClosed || !_open.Remove(streamId))
        {
            return;
        }

        _out.Enqueue(frame);
        _queuedBytes += frame.Length;
        if (_queuedBytes > MaxQueuedBytes)
        {
            Close();
            return;
        }

        if (!_waitsForWrite)
        {
            Flush();
        }
    }

    internal void Close()
    {
        if (!IsClosed)
        {
            IsClosed = true;
            _loop.Remove(_fd);
            _fd.Dispose();
            _out.Clear();
            _server.Remove(this);
        }
    }

    private void Receive()
    {
        Span<byte> free = _decoder.Free();
        nint n;
        fixed (byte* p = free)
        {
            n = Libc.read(_fd.Value, p, (nuint)free.Length);
        }

        if (n < 0)
        {
            if (Check.LastErrno is not (Errno.EAGAIN or Errno.EINTR))
            {
                Close();
            }

            return;
        }

        if (n == 0)
        {
            EndInput();
            return;
        }

        _decoder.Advance((int)n);
        while (!IsClosed)
        {
            FrameResult result = _decoder.Read(out FrameHeader header, out ArraySegment<byte> payload);
            if (result == FrameResult.Incomplete)
            {
                break;
            }

            Dispatch(result, header, payload);
        }
    }

    // A client may shut its write side down after the last request and still wait for answers.
    private void EndInput()
    {
        _inputEnded = true;
        if (_open.Count == 0 && _out.Count == 0)
        {
            Close();
        }
        else
        {
            _loop.Modify(_fd, _waitsForWrite ? Libc.EPOLLOUT : 0);
        }
    }

    private void Dispatch(FrameResult result, FrameHeader header, ArraySegment<byte> payload)
    {
        // A client's stream ids are odd and one names one open call; anything else is not a ttrpc client.
        if (header.Type != FrameType.Request || (header.StreamId & 1) == 0 || !_open.Add(header.StreamId))
        {
            Close();
            return;
        }

        TtrpcCall call;
        try
        {
            TtrpcRequest request = result == FrameResult.Frame ? TtrpcRequest.Parse(payload) : default;
            call = new TtrpcCall(this, header.StreamId, request);
        }
        catch (InvalidProtocolBufferException e)
        {
            new TtrpcCall(this, header.StreamId, default).Fail(StatusCode.InvalidArgument, $"ttrpc: malformed request: {e.Message}");
            return;
        }

        if (result == FrameResult.TooLarge)
        {
            call.Fail(StatusCode.ResourceExhausted, $"ttrpc: a request of {header.Length} bytes is larger than {FrameHeader.MaxPayload}");
        }
        else if (_open.Count > MaxOpenCalls)
        {
            call.Fail(StatusCode.ResourceExhausted, $"ttrpc: more than {MaxOpenCalls} calls at once");
        }
        else
        {
            Invoke(call);
        }
    }

    private void Invoke(TtrpcCall call)
    {
        ITtrpcService? service = _server.Find(call.Request.Service);
        if (service is null)
        {
            call.Fail(StatusCode.Unimplemented, $"service {call.Request.Service} is not offered");
            return;
        }

        try
        {
            if (!service.Invoke(call))
            {
                call.Fail(StatusCode.Unimplemented, $"{call.Request.Service} has no method {call.Request.Method}");
            }
        }
        catch (TtrpcException e)
        {
            call.Fail(e.Code, e.Message);
        }
        catch (InvalidProtocolBufferException e)
        {
            call.Fail(StatusCode.InvalidArgument, $"{call.Request.Method}: malformed request: {e.Message}");
        }
        catch (Exception e) when (e is not OutOfMemoryException)
        {
            call.Fail(StatusCode.Internal, $"{call.Request.Method}: {e.Message}");
        }
    }

    private void Flush()
    {
        while (_out.TryPeek(out byte[]? frame))
        {
            nint n;
            fixed (byte* p = frame)
            {
                n = Libc.send(_fd.Value, p + _outOffset, (nuint)(frame.Length - _outOffset), Libc.MSG_NOSIGNAL);
            }

            if (n < 0)
            {
                Errno errno = Check.LastErrno;
                if (errno == Errno.EINTR)
                {
                    continue;
                }

                if (errno != Errno.EAGAIN)
                {
                    Close();
                    return;
                }

                WaitForWrite(true);
                return;
            }

            _outOffset += (int)n;
            if (_outOffset == frame.Length)
            {
                _out.Dequeue();
                _outOffset = 0;
                _queuedBytes -= frame.Length;
            }
        }

        WaitForWrite(false);
        if (_inputEnded && _open.Count == 0)
        {
            Close();
        }
    }

    private void WaitForWrite(bool wait)
    {
        if (_waitsForWrite != wait)
        {
            _waitsForWrite = wait;
            _loop.Modify(_fd, (_inputEnded ? 0 : Libc.EPOLLIN) | (wait ? Libc.EPOLLOUT : 0));
        }
    }
}
