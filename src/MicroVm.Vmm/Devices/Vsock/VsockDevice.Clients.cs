using System.Buffers.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Vmm.Devices.Vsock;

/// <content>Host clients: accepting, the CONNECT line, holding until the driver is up, time limits.</content>
public sealed unsafe partial class VsockDevice
{
    private const long TickMilliseconds = 1000;
    private bool _listenerPaused;
    private bool _timerRunning;

    /// <summary>How long a host client may take to send its CONNECT line.</summary>
    internal long HandshakeMilliseconds { get; init; } = VsockLimits.HandshakeMilliseconds;

    /// <summary>How long the guest may take to answer a request.</summary>
    internal long RequestMilliseconds { get; init; } = VsockLimits.RequestMilliseconds;

    private bool CanAccept =>
        _all.Count < VsockLimits.MaxConnections && _pending.Count < VsockLimits.MaxPending && !_resets.IsFull;

    private void Accept()
    {
        while (CanAccept)
        {
            SafeFd? socket = UnixSocket.TryAccept(_listener, out Errno errno);
            if (socket is null)
            {
                if (errno == Errno.EAGAIN)
                {
                    return;
                }

                // Out of descriptors or memory: the client goes on waiting, and the next tick looks again.
                break;
            }

            if (Open(socket, VsockState.Handshake) is { } stream)
            {
                stream.Deadline = Environment.TickCount64 + HandshakeMilliseconds;
                _pending.Add(stream);
                StartTimer();
                ReadConnectLine(stream);
            }
        }

        // Clients wait in the socket's backlog while there is no room for them.
        _listenerPaused = true;
        _loop.Modify(_listener, 0);
        StartTimer();
    }

    private void ResumeListener()
    {
        if (_listenerPaused && CanAccept)
        {
            _listenerPaused = false;
            _loop.Modify(_listener, Libc.EPOLLIN);
        }
    }

    private void ReadConnectLine(VsockConnection stream)
    {
        // Peeked first: what the client sends behind the line belongs to the guest.
        Span<byte> line = stackalloc byte[VsockLimits.MaxConnectLine];
        int fd = stream.Socket!.Value;
        nint n;
        fixed (byte* p = line)
        {
            do
            {
                n = Libc.recv(fd, p, (nuint)line.Length, Libc.MSG_PEEK | Libc.MSG_DONTWAIT);
            }
            while (Check.Retry(n));
            if (n < 0 && Check.LastErrno == Errno.EAGAIN)
            {
                return;
            }

            int end = n > 0 ? line[..(int)n].IndexOf((byte)'\n') : -1;
            if (end < 0)
            {
                if (n <= 0 || n == line.Length || stream.HungUp)
                {
                    Refuse(stream);
                }

                return;
            }

            _ = Libc.recv(fd, p, (nuint)end + 1, Libc.MSG_DONTWAIT);
            if (stream.HungUp || !TryParseConnect(line[..end], out stream.GuestPort))
            {
                Refuse(stream);
                return;
            }
        }

        stream.State = VsockState.Held;
        if (_activation is not null)
        {
            Request(stream);
        }
    }

    private void Refuse(VsockConnection stream)
    {
        _counters.Refused++;
        Drop(stream);
    }

    /// <summary>Parses <c>CONNECT port</c>; the port any but VMADDR_PORT_ANY.</summary>
    internal static bool TryParseConnect(ReadOnlySpan<byte> line, out uint port)
    {
        ReadOnlySpan<byte> verb = "CONNECT "u8;
        port = 0;
        return line.StartsWith(verb)
            && line.Length > verb.Length
            && char.IsAsciiDigit((char)line[verb.Length])
            && Utf8Parser.TryParse(line[verb.Length..], out port, out int used)
            && used == line.Length - verb.Length
            && port != Libc.VMADDR_PORT_ANY;
    }

    private void RequestHeld()
    {
        foreach (VsockConnection stream in _pending)
        {
            if (stream.State == VsockState.Held)
            {
                Request(stream);
            }
        }
    }

    private void Request(VsockConnection stream)
    {
        stream.HostPort = FreshHostPort();
        stream.State = VsockState.Requested;
        stream.Deadline = Environment.TickCount64 + RequestMilliseconds;
        stream.Pending = VsockPending.Request;
        _streams.Add(stream.Key, stream);
        _counters.HostConnects++;
        StartTimer();
        Schedule(stream);
    }

    private uint FreshHostPort()
    {
        while (true)
        {
            uint port = _nextHostPort;
            _nextHostPort = port == VsockLimits.LastHostPort ? VsockLimits.FirstHostPort : port + 1;

            // The number names the stream to the agent: no other live stream has it, whatever its guest port.
            bool taken = false;
            foreach (VsockConnection other in _all)
            {
                taken |= other.HostPort == port;
            }

            if (!taken)
            {
                return port;
            }
        }
    }

    /// <summary>The guest accepted: tells the client, whose bytes flow from now on.</summary>
    private void Accepted(VsockConnection stream)
    {
        _pending.Remove(stream);
        stream.State = VsockState.Established;
        Span<byte> answer = stackalloc byte[16];
        "OK "u8.CopyTo(answer);
        _ = Utf8Formatter.TryFormat(stream.HostPort, answer[3..], out int digits);
        answer[3 + digits] = (byte)'\n';
        nint length = digits + 4;
        nint n;
        fixed (byte* p = answer)
        {
            n = Libc.send(stream.Socket!.Value, p, (nuint)length, Libc.MSG_DONTWAIT | Libc.MSG_NOSIGNAL);
        }

        if (n != length)
        {
            // The buffer of a socket that nothing was written to has room: the client has gone.
            ResetStream(stream, tellGuest: true);
        }
    }

    private void StartTimer()
    {
        if (!_timerRunning)
        {
            _timerRunning = true;
            _timer.Set(TickMilliseconds);
        }
    }

    private void OnTimer()
    {
        _timerRunning = false;
        long now = Environment.TickCount64;
        for (int i = _pending.Count - 1; i >= 0; i--)
        {
            VsockConnection stream = _pending[i];
            if (stream.State != VsockState.Held && now >= stream.Deadline)
            {
                _counters.TimedOut++;
                ResetStream(stream, stream.State == VsockState.Requested && (stream.Pending & VsockPending.Request) == 0);
            }
        }

        ResumeListener();
        bool waiting = _listenerPaused;
        foreach (VsockConnection stream in _pending)
        {
            waiting |= stream.State != VsockState.Held;
        }

        if (waiting)
        {
            StartTimer();
        }
    }
}
