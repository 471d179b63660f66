using System.Buffers.Binary;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Names;

namespace MicroVm.Sandbox.Network;

/// <summary>What a <see cref="NameQuery"/> came to.</summary>
internal enum NameQueryStep
{
    /// <summary>It waits for its socket.</summary>
    Waits,

    /// <summary>The answer is there.</summary>
    Answered,

    /// <summary>There will be none.</summary>
    Failed,
}

/// <summary>
/// One question of the guest, asked by a socket of its own: by UDP with a source port that nobody can foresee, or by TCP, where it and
/// its answer follow their lengths. Never blocks. Owns the socket.
/// </summary>
internal sealed unsafe class NameQuery : IDisposable
{
    private const int LengthSize = 2;
    private readonly bool _isStream;

    // The question as it is sent, then the answer as it comes.
    private byte[] _buffer;
    private int _at;
    private bool _sent;

    private NameQuery(NameFrame frame, SafeFd socket, byte[] question, long deadline)
    {
        (Frame, Socket, _buffer, Deadline) = (frame, socket, question, deadline);
        _isStream = frame.Transport == NameTransport.Stream;
    }

    /// <summary>The guest's frame.</summary>
    internal NameFrame Frame { get; }

    /// <summary>The socket, which is watched for <see cref="Wanted"/>.</summary>
    internal SafeFd Socket { get; }

    /// <summary>Events of epoll(7) that <see cref="Step"/> waits for.</summary>
    internal uint Wanted => _sent ? Libc.EPOLLIN : Libc.EPOLLOUT;

    /// <summary>When it is given up, in milliseconds of <see cref="Environment.TickCount64"/>.</summary>
    internal long Deadline { get; }

    /// <summary>Makes the socket, in the calling thread's network namespace, and begins to connect.</summary>
    /// <returns>Null when it cannot be made or connected.</returns>
    internal static NameQuery? TryStart(NameFrame frame, uint address, ReadOnlySpan<byte> message, long deadline)
    {
        bool stream = frame.Transport == NameTransport.Stream;
        SafeFd socket = new(Libc.socket(Libc.AF_INET, (stream ? Libc.SOCK_STREAM : Libc.SOCK_DGRAM) | Libc.SOCK_CLOEXEC | Libc.SOCK_NONBLOCK, 0));
        if (socket.IsInvalid)
        {
            return null;
        }

        Libc.sockaddr_in to = new() { sin_family = Libc.AF_INET, sin_addr = address, sin_port = BinaryPrimitives.ReverseEndianness(NameFrame.Port) };
        if (Libc.connect(socket.Value, &to, (uint)sizeof(Libc.sockaddr_in)) < 0 && Check.LastErrno != Errno.EINPROGRESS)
        {
            socket.Dispose();
            return null;
        }

        int head = stream ? LengthSize : 0;
        byte[] question = new byte[head + message.Length];
        message.CopyTo(question.AsSpan(head));
        if (stream)
        {
            BinaryPrimitives.WriteUInt16BigEndian(question, (ushort)message.Length);
        }

        return new NameQuery(frame, socket, question, deadline);
    }

    /// <summary>Goes on, once the socket is ready.</summary>
    /// <param name="answer">The answer without its length; valid until the object is used again.</param>
    internal NameQueryStep Step(out ReadOnlySpan<byte> answer)
    {
        answer = default;
        if (!_sent)
        {
            return Send();
        }

        int wanted = !_isStream ? _buffer.Length : _at < LengthSize ? LengthSize : LengthSize + BinaryPrimitives.ReadUInt16BigEndian(_buffer);
        if (_buffer.Length < wanted)
        {
            Array.Resize(ref _buffer, wanted);
        }

        nint n;
        fixed (byte* p = _buffer)
        {
            n = Libc.recv(Socket.Value, p + _at, (nuint)(wanted - _at), Libc.MSG_DONTWAIT);
        }

        if (n <= 0)
        {
            // ECONNREFUSED: nobody listens there any more.
            return n < 0 && Check.LastErrno is Errno.EAGAIN or Errno.EINTR ? NameQueryStep.Waits : NameQueryStep.Failed;
        }

        _at += (int)n;
        int head = _isStream ? LengthSize : 0;
        if (_isStream && (_at < LengthSize || _at < LengthSize + BinaryPrimitives.ReadUInt16BigEndian(_buffer)))
        {
            return NameQueryStep.Waits;
        }

        answer = _buffer.AsSpan(head, _at - head);
        return answer.IsEmpty ? NameQueryStep.Failed : NameQueryStep.Answered;
    }

    public void Dispose() => Socket.Dispose();

    private NameQueryStep Send()
    {
        nint n;
        fixed (byte* p = _buffer)
        {
            n = Libc.send(Socket.Value, p + _at, (nuint)(_buffer.Length - _at), Libc.MSG_DONTWAIT | Libc.MSG_NOSIGNAL);
        }

        if (n < 0)
        {
            return Check.LastErrno is Errno.EAGAIN or Errno.EINTR ? NameQueryStep.Waits : NameQueryStep.Failed;
        }

        _at += (int)n;
        if (_at == _buffer.Length)
        {
            _sent = true;
            _at = 0;
            _buffer = new byte[_isStream ? LengthSize : ushort.MaxValue];
        }

        return NameQueryStep.Waits;
    }
}
