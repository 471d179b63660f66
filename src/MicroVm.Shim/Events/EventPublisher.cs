using Google.Protobuf;
using Google.Protobuf.WellKnownTypes;
using MicroVm.Linux;
using MicroVm.Shim.Api;
using MicroVm.Ttrpc;

namespace MicroVm.Shim.Events;

/// <summary>
/// Sends events to containerd, one after the other, each until containerd has taken it: while containerd is restarted they wait. What
/// containerd refuses is dropped after a few attempts, lest it hold up what follows. A call whose answer was lost is made again, so
/// that an event may come twice, and none is lost.
/// </summary>
internal sealed class EventPublisher : IEventSink, IDisposable
{
    private const string Service = "containerd.services.events.ttrpc.v1.Events";
    private const string Scheme = "unix://";

    /// <summary>Most events that wait: what containers do while containerd is away must not grow the shim without bound.</summary>
    internal const int MaxWaiting = 16 * 1024;
    private const int MaxRefusals = 5;
    private static readonly TimeSpan CallTimeout = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan FirstPause = TimeSpan.FromMilliseconds(50);
    private static readonly TimeSpan LongestPause = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan FlushTimeout = TimeSpan.FromSeconds(5);
    private readonly string? _path;
    private readonly string _namespace;
    private readonly Action<string> _warn;
    private readonly object _lock = new();
    private readonly LinkedList<Envelope> _waiting = new();
    private readonly Thread _thread;
    private TtrpcClient? _client;
    private bool _ending;

    /// <summary>Starts to send.</summary>
    /// <param name="address">containerd's ttrpc socket, with or without "unix://"; null drops every event.</param>
    /// <param name="ns">containerd's namespace.</param>
    /// <param name="warn">Takes a line about what was dropped.</param>
    internal EventPublisher(string? address, string ns, Action<string> warn)
    {
        _path = string.IsNullOrEmpty(address) ? null : address.StartsWith(Scheme, StringComparison.Ordinal) ? address[Scheme.Length..] : address;
        _namespace = ns;
        _warn = warn;
        _thread = new Thread(Run, 256 << 10) { IsBackground = true, Name = "events" };
        _thread.Start();
    }

    /// <inheritdoc/>
    public void Publish(EventKind kind, IMessage message)
    {
        Envelope envelope = new()
        {
            Timestamp = Timestamp.FromDateTime(DateTime.UtcNow),
            Namespace = _namespace,
            Topic = kind.Topic,
            Event = new Any { TypeUrl = kind.Type, Value = message.ToByteString() },
        };
        if (_path is null)
        {
            return;
        }

        lock (_lock)
        {
            if (_waiting.Count < MaxWaiting)
            {
                _ = _waiting.AddLast(envelope);
                Monitor.PulseAll(_lock);
                return;
            }
        }

        _warn($"event {kind.Topic} is lost: {MaxWaiting} events wait for containerd already");
    }

    /// <summary>Waits until every event is taken, at most some seconds.</summary>
    internal void Flush()
    {
        long deadline = Environment.TickCount64 + (long)FlushTimeout.TotalMilliseconds;
        lock (_lock)
        {
            while (_waiting.Count > 0 && deadline - Environment.TickCount64 is var left and > 0)
            {
                _ = Monitor.Wait(_lock, (int)left);
            }
        }
    }

    /// <summary>Ends it; events that were not taken are lost.</summary>
    public void Dispose()
    {
        lock (_lock)
        {
            _ending = true;
            Monitor.PulseAll(_lock);
        }

        _thread.Join(CallTimeout);
        _client?.Dispose();
    }

    private void Run()
    {
        int refusals = 0;
        TimeSpan pause = FirstPause;
        while (Next() is { } envelope)
        {
            try
            {
                Send(envelope);
                (refusals, pause) = (0, FirstPause);
                Taken();
            }
            catch (Exception e) when (e is TtrpcException or LinuxException)
            {
                bool away = e is LinuxException or TtrpcException { Code: StatusCode.Unavailable or StatusCode.DeadlineExceeded or StatusCode.DataLoss };
                if (away)
                {
                    _client?.Dispose();
                    _client = null;
                }
                else if (++refusals == MaxRefusals)
                {
                    _warn($"event {envelope.Topic} is lost: containerd refuses it: {e.Message}");
                    refusals = 0;
                    Taken();
                    continue;
                }

                Pause(pause);
                pause = TimeSpan.FromTicks(Math.Min(pause.Ticks * 2, LongestPause.Ticks));
            }
        }
    }

    private void Send(Envelope envelope)
    {
        _client ??= TtrpcClient.Connect(_path!);
        _ = _client.Call(Service, "Forward", new ForwardRequest { Envelope = envelope }, Empty.Parser, CallTimeout);
    }

    /// <summary>The oldest event, which stays where it is until it is taken; null at the end.</summary>
    private Envelope? Next()
    {
        lock (_lock)
        {
            while (_waiting.Count == 0 && !_ending)
            {
                _ = Monitor.Wait(_lock);
            }

            return _ending ? null : _waiting.First!.Value;
        }
    }

    private void Taken()
    {
        lock (_lock)
        {
            _waiting.RemoveFirst();
            Monitor.PulseAll(_lock);
        }
    }

    private void Pause(TimeSpan time)
    {
        long deadline = Environment.TickCount64 + (long)time.TotalMilliseconds;
        lock (_lock)
        {
            while (!_ending && deadline - Environment.TickCount64 is var left and > 0)
            {
                _ = Monitor.Wait(_lock, (int)left);
            }
        }
    }
}
