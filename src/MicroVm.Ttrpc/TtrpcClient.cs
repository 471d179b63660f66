using System.Diagnostics;
using Google.Protobuf;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Ttrpc;

/// <summary>
/// A ttrpc client over a connected stream socket. Calls block; any number of threads may call at once. A thread of its
/// own, started by the first call, reads and parses the answers: no other meets a byte of the server's. Owns the descriptor.
/// </summary>
public sealed unsafe class TtrpcClient : IDisposable
{
    // A server's message ends up in logs and on terminals: no honest one is longer.
    private const int MaxStatusMessage = 4096;
    private readonly SafeFd _fd;
    private readonly Action? _readerStarts;
    private readonly EventFd _wake = new();
    private readonly Lock _sendLock = new();
    private readonly object _stateLock = new();
    private readonly Dictionary<uint, PendingCall> _pending = [];
    private uint _nextStreamId = 1;
    private Thread? _reader;
    private TtrpcException? _broken;
    private bool _disposed;

    /// <summary>Takes ownership of a connected stream socket.</summary>
    /// <param name="connection">The socket.</param>
    /// <param name="readerStarts">Called on the thread that reads the answers before it does; must not throw.</param>
    public TtrpcClient(SafeFd connection, Action? readerStarts = null)
    {
        ArgumentNullException.ThrowIfNull(connection);
        (_fd, _readerStarts) = (connection, readerStarts);
    }

    /// <summary>Connects to a Unix socket.</summary>
    /// <exception cref="LinuxException">Nobody listens at <paramref name="path"/>.</exception>
    public static TtrpcClient Connect(string path) => new(UnixSocket.Connect(path));

    /// <summary>Why the connection can no longer be used; null while it can.</summary>
    public TtrpcException? Broken
    {
        get
        {
            lock (_stateLock)
            {
                return _broken;
            }
        }
    }

    /// <summary>Calls a method and waits for the answer.</summary>
    /// <param name="service">Full name of the service.</param>
    /// <param name="method">The method's name.</param>
    /// <param name="request">The request message.</param>
    /// <param name="parser">Parser of the response message.</param>
    /// <param name="timeout">How long to wait; <see cref="Timeout.InfiniteTimeSpan"/> for ever.</param>
    /// <exception cref="TtrpcException">
    /// The server's status; DeadlineExceeded after <paramref name="timeout"/>; Unavailable when the connection ended; DataLoss
    /// when the server broke the protocol, which ends the connection.
    /// </exception>
    public T Call<T>(string service, string method, IMessage request, MessageParser<T> parser, TimeSpan timeout)
        where T : IMessage<T>
    {
        ArgumentNullException.ThrowIfNull(parser);
        long deadline = timeout == Timeout.InfiniteTimeSpan ? long.MaxValue : Environment.TickCount64 + (long)timeout.TotalMilliseconds;
        long nanoseconds = timeout == Timeout.InfiniteTimeSpan ? 0 : (long)timeout.TotalMilliseconds * 1_000_000;
        PendingCall<T> call = new(method, parser);
        Send(service, method, request, nanoseconds, call, deadline);
        lock (_stateLock)
        {
            while (!call.Done)
            {
                long left = deadline == long.MaxValue ? Timeout.Infinite : Math.Clamp(deadline - Environment.TickCount64, 0, int.MaxValue);
                if (left == 0 || !Monitor.Wait(_stateLock, (int)left))
                {
                    if (!call.Done && (deadline != long.MaxValue && Environment.TickCount64 >= deadline))
                    {
                        // The answer may still come: the reader then finds no such call and drops it.
                        _pending.Remove(call.StreamId);
                        throw new TtrpcException(
                            StatusCode.DeadlineExceeded, $"{method}: no answer within {timeout.TotalSeconds:0.###} s");
                    }
                }
            }
        }

        if (call.Failure is not null)
        {
            throw new TtrpcException(call.Failure.Code, call.Failure.Message);
        }

        return call.Answer!;
    }

    /// <summary>Ends the connection; calls that wait fail with Unavailable.</summary>
    public void Dispose()
    {
        Thread? reader;
        lock (_stateLock)
        {
            if (_disposed)
            {
                return;
            }

            _disposed = true;
            reader = _reader;
        }

        Fail(new TtrpcException(StatusCode.Unavailable, "ttrpc: the connection was closed"));
        _wake.Signal();
        if (reader != Thread.CurrentThread)
        {
            reader?.Join();
        }

        lock (_sendLock)
        {
            _fd.Dispose();
        }

        _wake.Dispose();
    }

    private void Send(string service, string method, IMessage request, long nanoseconds, PendingCall call, long deadline)
    {
        // Stream ids must reach the server in rising order, so the number is drawn under the lock that sends.
        lock (_sendLock)
        {
            uint id = _nextStreamId;
            byte[] frame = TtrpcRequest.Encode(id, service, method, request, nanoseconds);
            lock (_stateLock)
            {
                ObjectDisposedException.ThrowIf(_disposed, this);
                if (_broken is not null)
                {
                    throw new TtrpcException(_broken.Code, _broken.Message);
                }

                call.StreamId = id;
                _pending.Add(id, call);
                if (_reader is null)
                {
                    Thread reader = new(ReadLoop, 256 << 10) { IsBackground = true, Name = "ttrpc" };
                    reader.Start();

                    // Only one that runs can be waited for: the system may have no thread left.
                    _reader = reader;
                }
            }

            Volatile.Write(ref _nextStreamId, checked(id + 2));
            try
            {
                WriteAll(frame, deadline);
            }
            catch (TtrpcException e)
            {
                // Part of a frame may be out: nothing after it could be understood.
                Fail(e);
            }
        }
    }

    private void WriteAll(ReadOnlySpan<byte> bytes, long deadline)
    {
        fixed (byte* p = bytes)
        {
            for (int done = 0; done < bytes.Length;)
            {
                nint n = Libc.send(_fd.Value, p + done, (nuint)(bytes.Length - done), Libc.MSG_NOSIGNAL | Libc.MSG_DONTWAIT);
                if (n >= 0)
                {
                    done += (int)n;
                    continue;
                }

                Errno errno = Check.LastErrno;
                if (errno == Errno.EAGAIN)
                {
                    int left = deadline == long.MaxValue ? -1 : (int)Math.Clamp(deadline - Environment.TickCount64, 0, int.MaxValue);
                    Libc.pollfd pfd = new() { fd = _fd.Value, events = Libc.POLLOUT };
                    if (left == 0 || Libc.poll(&pfd, 1, left) == 0)
                    {
                        throw new TtrpcException(StatusCode.DeadlineExceeded, "ttrpc: the server takes no more requests");
                    }
                }
                else if (errno != Errno.EINTR)
                {
                    throw new TtrpcException(StatusCode.Unavailable, $"ttrpc: send: {LinuxException.Text(errno)}");
                }
            }
        }
    }

    private void ReadLoop()
    {
        _readerStarts?.Invoke();
        FrameDecoder decoder = new();
        Libc.pollfd* fds = stackalloc Libc.pollfd[2];
        fds[0] = new Libc.pollfd { fd = _fd.Value, events = Libc.POLLIN };
        fds[1] = new Libc.pollfd { fd = _wake.Fd.Value, events = Libc.POLLIN };
        while (Broken is null)
        {
            if (Libc.poll(fds, 2, -1) < 0 || fds[0].revents == 0)
            {
                continue;
            }

            Span<byte> free = decoder.Free();
            nint n;
            fixed (byte* p = free)
            {
                n = Libc.recv(fds[0].fd, p, (nuint)free.Length, Libc.MSG_DONTWAIT);
            }

            if (n > 0)
            {
                decoder.Advance((int)n);
                Drain(decoder);
            }
            else if (n == 0)
            {
                Fail(new TtrpcException(StatusCode.Unavailable, "ttrpc: the server closed the connection"));
            }
            else if (Check.LastErrno is not (Errno.EINTR or Errno.EAGAIN))
            {
                Fail(new TtrpcException(StatusCode.Unavailable, $"ttrpc: receive: {LinuxException.Text(Check.LastErrno)}"));
            }
        }
    }

    private void Drain(FrameDecoder decoder)
    {
        FrameResult result;
        while ((result = decoder.Read(out FrameHeader header, out ArraySegment<byte> payload)) != FrameResult.Incomplete)
        {
            if (header.Type != FrameType.Response)
            {
                Fail(new TtrpcException(StatusCode.DataLoss, $"ttrpc: the server sent a frame of type {(byte)header.Type}, which is no response"));
                return;
            }

            // The answer to a call that was given up may still come; one to a call that was never made may not.
            if ((header.StreamId & 1) == 0 || header.StreamId >= Volatile.Read(ref _nextStreamId))
            {
                Fail(new TtrpcException(StatusCode.DataLoss, $"ttrpc: the server answered call {header.StreamId}, which was not made"));
                return;
            }

            TtrpcResponse response = default;
            TtrpcException? failure = null;
            if (result == FrameResult.TooLarge)
            {
                failure = new TtrpcException(StatusCode.ResourceExhausted, $"ttrpc: an answer of {header.Length} bytes is larger than {FrameHeader.MaxPayload}");
            }
            else
            {
                try
                {
                    response = TtrpcResponse.Parse(payload);
                }
                catch (InvalidProtocolBufferException e)
                {
                    Fail(new TtrpcException(StatusCode.DataLoss, $"ttrpc: malformed response: {e.Message}"));
                    return;
                }
            }

            PendingCall? call;
            lock (_stateLock)
            {
                if (!_pending.Remove(header.StreamId, out call))
                {
                    continue;
                }
            }

            failure ??= call.Take(response);
            lock (_stateLock)
            {
                call.Failure = failure;
                call.Done = true;
                Monitor.PulseAll(_stateLock);
            }
        }
    }

    private void Fail(TtrpcException reason)
    {
        lock (_stateLock)
        {
            _broken ??= reason;
            foreach (PendingCall call in _pending.Values)
            {
                call.Failure = _broken;
                call.Done = true;
            }

            _pending.Clear();
            Monitor.PulseAll(_stateLock);
        }

        _wake.Signal();
    }

    private abstract class PendingCall
    {
        internal uint StreamId;
        internal TtrpcException? Failure;
        internal bool Done;

        /// <summary>Takes the answer; what is wrong with it, or what the server says is.</summary>
        internal abstract TtrpcException? Take(in TtrpcResponse response);
    }

    private sealed class PendingCall<T>(string method, MessageParser<T> parser) : PendingCall
        where T : IMessage<T>
    {
        internal T? Answer;

        internal override TtrpcException? Take(in TtrpcResponse response)
        {
            if (response.Code != StatusCode.Ok)
            {
                string message = response.Message.Length > 0 ? response.Message : $"{method}: the server answered {response.Code}, without a reason";
                return new TtrpcException(response.Code, message.Length <= MaxStatusMessage ? message : message[..MaxStatusMessage] + "...");
            }

            try
            {
                Answer = parser.ParseFrom(response.Payload);
                return null;
            }
            catch (InvalidProtocolBufferException e)
            {
                return new TtrpcException(StatusCode.DataLoss, $"{method}: the answer is malformed: {e.Message}", e);
            }
        }
    }
}
