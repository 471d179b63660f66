using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Virtio;

namespace MicroVm.Vmm.Devices.Vsock;

/// <summary>
/// The host's end of a stream: a Unix socket, and a ring of bytes from the guest that the socket did not take yet. Owns both; is
/// used for one stream after the other.
/// </summary>
/// <remarks>Device thread only. epoll reports edges: readiness is remembered until a call says EAGAIN.</remarks>
internal sealed unsafe class HostSocket(EventLoop loop, HostRingPool rings)
{
    private const uint Events = Libc.EPOLLIN | Libc.EPOLLOUT | Libc.EPOLLRDHUP | Libc.EPOLLET;
    private SafeFd? _fd;
    private HostRing? _ring;
    private bool _readable;
    private bool _writable;

    /// <summary>There may be bytes, an end of file or an error to read.</summary>
    public bool IsReadable => _readable && !IsEnded;

    /// <summary>Nothing more will be read from the socket.</summary>
    public bool IsEnded { get; private set; }

    /// <summary>Nobody reads the other end any more; bytes of the guest are discarded.</summary>
    public bool IsDeaf { get; private set; }

    /// <summary>epoll reported a hang-up, or a read a reset.</summary>
    public bool HungUp { get; private set; }

    /// <summary>The guest's end of file was passed on.</summary>
    public bool WriteShut { get; private set; }

    /// <summary>Bytes of the guest that wait.</summary>
    public uint Backlog => _ring?.Count ?? 0;

    /// <summary>Takes over <paramref name="fd"/> and watches it; what happens on it goes to <paramref name="handler"/>.</summary>
    /// <exception cref="LinuxException">It cannot be watched; it stays the caller's.</exception>
    public void Open(SafeFd fd, IEventHandler handler)
    {
        loop.Add(fd, Events, handler);
        _fd = fd;
        _readable = _writable = true;
    }

    /// <summary>Takes note of what epoll reported.</summary>
    public void OnEvents(uint events)
    {
        const uint Input = Libc.EPOLLIN | Libc.EPOLLRDHUP | Libc.EPOLLHUP | Libc.EPOLLERR;
        const uint Output = Libc.EPOLLOUT | Libc.EPOLLHUP | Libc.EPOLLERR;
        _readable |= (events & Input) != 0;
        _writable |= (events & Output) != 0;
        HungUp |= (events & Libc.EPOLLHUP) != 0;
    }

    /// <summary>Reads a client's CONNECT line and nothing of what follows it, which belongs to the guest.</summary>
    /// <param name="port">The port.</param>
    /// <returns>Null when the line is not complete; false when it is none, or the client has gone.</returns>
    public bool? ReadConnectLine(out uint port)
    {
        Span<byte> line = stackalloc byte[VsockLimits.MaxConnectLine];
        int fd = _fd!.Value;
        port = 0;
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
                return null;
            }

            int end = n > 0 ? line[..(int)n].IndexOf((byte)'\n') : -1;
            if (end < 0)
            {
                return n <= 0 || n == line.Length || HungUp ? false : null;
            }

            _ = Libc.recv(fd, p, (nuint)end + 1, Libc.MSG_DONTWAIT);
            return !HungUp && ConnectLine.TryParse(line[..end], out port);
        }
    }

    /// <summary>Tells the client that the guest accepted; false when the client has gone.</summary>
    public bool TryAnswer(uint port)
    {
        Span<byte> answer = stackalloc byte[ConnectLine.MaxAnswer];
        int length = ConnectLine.Answer(port, answer);
        fixed (byte* p = answer)
        {
            // The buffer of a socket that nothing was written to has room.
            return Libc.send(_fd!.Value, p, (nuint)length, Libc.MSG_DONTWAIT | Libc.MSG_NOSIGNAL) == length;
        }
    }

    /// <summary>Reads straight into a receive buffer, behind the header's place.</summary>
    /// <param name="chain">The buffer.</param>
    /// <param name="limit">Most bytes.</param>
    /// <returns>Payload bytes; 0 when there are none now, or, with <see cref="IsEnded"/>, any more.</returns>
    public uint Read(DescriptorChain chain, ulong limit)
    {
        Libc.iovec* vectors = stackalloc Libc.iovec[VsockLimits.MaxVectors];
        int count = chain.SliceWritable(VsockHeader.Size, limit, new Span<Libc.iovec>(vectors, VsockLimits.MaxVectors));
        nint n;
        do
        {
            n = Libc.readv(_fd!.Value, vectors, count);
        }
        while (Check.Retry(n));
        if (n > 0)
        {
            return (uint)n;
        }

        _readable = false;
        if (n == 0 || Check.LastErrno != Errno.EAGAIN)
        {
            // End of file; or ECONNRESET, from a peer that closed without reading everything: it has gone altogether.
            HungUp |= n < 0;
            IsEnded = true;
        }

        return 0;
    }

    /// <summary>Writes payload straight from a transmit buffer, unless bytes wait already.</summary>
    /// <returns>How many bytes the socket took before it was full.</returns>
    public uint Write(DescriptorChain chain, uint length)
    {
        Libc.iovec* vectors = stackalloc Libc.iovec[VsockLimits.MaxVectors];
        uint done = 0;
        while (Backlog == 0 && done < length && CanWrite)
        {
            int count = chain.SliceReadable(
                VsockHeader.Size + done, length - done, new Span<Libc.iovec>(vectors, VsockLimits.MaxVectors));
            done += Send(vectors, count);
        }

        return done;
    }

    /// <summary>Keeps payload [<paramref name="offset"/>, + <paramref name="length"/>) in a ring of <paramref name="capacity"/> bytes.</summary>
    /// <returns>False when the host has no memory for it.</returns>
    public bool TryKeep(DescriptorChain chain, uint offset, uint length, uint capacity)
    {
        _ring ??= rings.TryRent((int)capacity);
        return _ring is { } ring && ring.TryAppend(chain, VsockHeader.Size + offset, length);
    }

    /// <summary>Writes what waits; the ring goes back when nothing does any more.</summary>
    /// <returns>How many bytes the socket took.</returns>
    public uint Flush()
    {
        Libc.iovec* vectors = stackalloc Libc.iovec[2];
        uint done = 0;
        while (_ring is { Count: not 0 } ring && CanWrite)
        {
            uint n = Send(vectors, ring.Peek(vectors));
            ring.Consume(n);
            done += n;
        }

        if (IsDeaf || Backlog == 0)
        {
            ReturnRing();
        }

        return done;
    }

    /// <summary>The guest takes nothing more: the host's writers are told, and what they had sent is dropped.</summary>
    public void EndReading()
    {
        IsEnded = true;
        if (_fd is { } fd)
        {
            _ = Libc.shutdown(fd.Value, Libc.SHUT_RD);
        }
    }

    /// <summary>Passes on the guest's end of file, once.</summary>
    public void EndWriting()
    {
        if (!WriteShut && _fd is { } fd)
        {
            WriteShut = true;
            _ = Libc.shutdown(fd.Value, Libc.SHUT_WR);
        }
    }

    /// <summary>Nobody reads the other end any more: what waits is discarded.</summary>
    public void StopWriting()
    {
        IsDeaf = true;
        ReturnRing();
    }

    /// <summary>Closes the socket and discards what waits. What was seen on it stays known until <see cref="Clear"/>.</summary>
    public void Close()
    {
        if (_fd is { } fd)
        {
            _fd = null;
            loop.Remove(fd);
            fd.Dispose();
        }

        ReturnRing();
    }

    /// <summary>Makes a closed one as new.</summary>
    public void Clear() => _readable = _writable = IsEnded = IsDeaf = HungUp = WriteShut = false;

    private bool CanWrite => _writable && !IsDeaf && _fd is not null;

    /// <summary>One sendmsg(2); a failure is kept in the flags.</summary>
    private uint Send(Libc.iovec* vectors, int count)
    {
        Libc.msghdr message = new() { msg_iov = vectors, msg_iovlen = (nuint)count };
        nint n;
        do
        {
            n = Libc.sendmsg(_fd!.Value, &message, Libc.MSG_DONTWAIT | Libc.MSG_NOSIGNAL);
        }
        while (Check.Retry(n));
        if (n >= 0)
        {
            return (uint)n;
        }

        Errno errno = Check.LastErrno;
        _writable = false;
        if (errno is Errno.ENOBUFS or Errno.ENOMEM)
        {
            // No edge follows when the host has memory again: have readiness reported anew.
            loop.Modify(_fd, Events);
        }
        else if (errno != Errno.EAGAIN)
        {
            // EPIPE, ECONNRESET: nobody reads there any more.
            IsDeaf = true;
        }

        return 0;
    }

    private void ReturnRing()
    {
        if (_ring is { } ring)
        {
            _ring = null;
            rings.Return(ring);
        }
    }
}
