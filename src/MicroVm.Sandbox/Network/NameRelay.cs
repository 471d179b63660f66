using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Linux.Netlink;
using MicroVm.Protocol.Names;

namespace MicroVm.Sandbox.Network;

/// <summary>
/// The host's side of names that are answered on loopback addresses of the container's network namespace: each question that the
/// guest passes on is asked there, as a process of the namespace would. The guest is not trusted: it may ask those addresses' port 53
/// and no other, so many questions at once, and for so long.
/// </summary>
internal sealed unsafe class NameRelay : INameChannelOwner, IEventHandler, IDisposable
{
    /// <summary>Most questions at once; one more ends the oldest.</summary>
    internal const int MaxQueries = 128;

    private const long QueryMilliseconds = 20_000, SweepMilliseconds = 5_000;
    private readonly uint[] _addresses;
    private readonly NamespaceLoop _thread = new();
    private readonly TimerFd _timer = new();
    private readonly List<NameQuery> _queries = [];
    private readonly NameChannel _channel;
    private volatile bool _over;

    /// <summary>Starts to answer, on a thread of its own in the namespace.</summary>
    /// <param name="network">The container's network namespace.</param>
    /// <param name="stream">To the guest's agent; taken over.</param>
    /// <param name="addresses">IPv4 addresses in network byte order, by the guest's index.</param>
    /// <exception cref="LinuxException">No descriptor is free.</exception>
    internal NameRelay(NetworkNamespace network, SafeFd stream, IReadOnlyList<uint> addresses)
    {
        _addresses = [.. addresses];
        Check.Result(Libc.fcntl(stream.Value, Libc.F_SETFL, Libc.O_RDWR | Libc.O_NONBLOCK), "fcntl(F_SETFL)");
        _channel = new NameChannel(_thread.Loop, stream, this);
        _thread.Loop.Add(_timer.Fd, Libc.EPOLLIN, this);
        _thread.Start(network, "names", Close);
    }

    /// <summary>Whether it is for these addresses, and the guest's side is there.</summary>
    internal bool Serves(IReadOnlyList<uint> addresses) => !_over && addresses.SequenceEqual(_addresses);

    /// <inheritdoc/>
    public void OnMessage(NameFrame frame, ReadOnlySpan<byte> message)
    {
        if (frame.Address >= _addresses.Length || message.IsEmpty)
        {
            return;
        }

        if (_queries.Count == MaxQueries)
        {
            End(_queries[0], []);
        }

        if (NameQuery.TryStart(frame, _addresses[frame.Address], message, Environment.TickCount64 + QueryMilliseconds) is not { } query)
        {
            _ = _channel.TrySend(frame with { Length = 0 }, []);
            return;
        }

        _queries.Add(query);
        _thread.Loop.Add(query.Socket, query.Wanted, this);
        if (_queries.Count == 1)
        {
            _timer.Set(SweepMilliseconds);
        }
    }

    /// <inheritdoc/>
    public void OnClosed()
    {
        _over = true;
        _thread.Loop.Stop();
    }

    /// <inheritdoc/>
    public void OnReady(SafeFd fd, uint events)
    {
        if (fd == _timer.Fd)
        {
            Sweep();
            return;
        }

        if (_queries.Find(q => q.Socket == fd) is not { } query)
        {
            return;
        }

        switch (query.Step(out ReadOnlySpan<byte> answer))
        {
            case NameQueryStep.Waits:
                _thread.Loop.Modify(query.Socket, query.Wanted);
                break;
            case NameQueryStep.Answered:
                End(query, answer);
                break;
            case NameQueryStep.Failed:
                End(query, []);
                break;
        }
    }

    /// <summary>Answers no more; the thread is not waited for.</summary>
    public void Dispose() => _thread.Dispose();

    // Where the namespace is gone, the guest sees its side of the stream end.
    private void Close()
    {
        _over = true;
        _queries.ForEach(q => q.Dispose());
        _channel.Dispose();
        _timer.Dispose();
    }

    private void Sweep()
    {
        _timer.Drain();
        long now = Environment.TickCount64;
        while (_queries.Count > 0 && _queries[0].Deadline <= now)
        {
            End(_queries[0], []);
        }

        if (_queries.Count > 0)
        {
            _timer.Set(SweepMilliseconds);
        }
    }

    private void End(NameQuery query, ReadOnlySpan<byte> answer)
    {
        _thread.Loop.Remove(query.Socket);
        _ = _channel.TrySend(query.Frame with { Length = (ushort)answer.Length }, answer);
        _queries.Remove(query);
        query.Dispose();
    }
}
