using Google.Protobuf.WellKnownTypes;
using MicroVm.Linux;
using MicroVm.Shim.Api;
using MicroVm.Ttrpc;

namespace MicroVm.Shim.Tests.Support;

/// <summary>containerd's service of events on a socket, which can go away and come again.</summary>
internal sealed class FakeContainerd : ITtrpcService, IDisposable
{
    private readonly List<Envelope> _events = [];
    private readonly EventLoop _loop = new();
    private readonly SafeFd _listener;
    private readonly TtrpcServer _server;
    private readonly Thread _thread;
    private readonly string _path;

    internal FakeContainerd(string path)
    {
        _path = path;
        _listener = UnixSocket.Listen(path);
        _server = new TtrpcServer(_loop, this);
        _server.Listen(_listener, UnixSocket.Accept);
        _thread = new Thread(_loop.Run) { IsBackground = true };
        _thread.Start();
    }

    public string ServiceName => "containerd.services.events.ttrpc.v1.Events";

    /// <summary>Refuses this topic.</summary>
    internal string? Refuses { get; init; }

    internal IReadOnlyList<string> Topics => [.. Events.Select(e => e.Topic)];

    internal IReadOnlyList<Envelope> Events
    {
        get
        {
            lock (_events)
            {
                return [.. _events];
            }
        }
    }

    public bool Invoke(TtrpcCall call)
    {
        if (call.Request.Method != "Forward")
        {
            return false;
        }

        Envelope envelope = ForwardRequest.Parser.ParseFrom(call.Request.Payload).Envelope;
        if (envelope.Topic == Refuses)
        {
            call.Fail(StatusCode.InvalidArgument, "no such topic");
            return true;
        }

        lock (_events)
        {
            _events.Add(envelope);
        }

        call.Complete(new Empty());
        return true;
    }

    public void Dispose()
    {
        _loop.Stop();
        _thread.Join();
        _server.Dispose();
        _listener.Dispose();
        _loop.Dispose();
        File.Delete(_path);
    }
}
