using Google.Protobuf;
using Google.Protobuf.WellKnownTypes;
using MicroVm.Linux;
using MicroVm.Sandbox;
using MicroVm.Shim.Api;
using MicroVm.Shim.Events;
using MicroVm.Shim.Tasks;
using MicroVm.Ttrpc;

namespace MicroVm.Shim.Tests.Support;

/// <summary>The Task service over fake containers, and a client of it, as containerd is one.</summary>
internal sealed class ShimServer : IEventSink, IDisposable
{
    internal const string Id = "box";
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);
    private readonly TempFolder _folder = new();
    private readonly EventLoop _loop = new();
    private readonly TtrpcServer _server;
    private readonly TtrpcClient _client;
    private readonly Thread _thread;
    private readonly List<(string Topic, IMessage Message)> _events = [];
    private readonly RuntimeLog _log;

    internal ShimServer(FakeContainer container)
    {
        File.WriteAllText(_folder["config.json"], """{"ociVersion":"1.0.2"}""");
        _log = RuntimeLog.Open(_folder["log"], json: false, debug: true);
        TaskTable tasks = new(new TaskHost("tests", Debug: true, null!, _log), this, _ => container);
        TaskService service = new(tasks, _loop, () => IsShutDown = true);
        _server = new TtrpcServer(_loop, service.As(TaskService.Version2), service.As(TaskService.Version3));
        (SafeFd ours, SafeFd its) = UnixSocket.Pair(nonBlocking: true);
        _server.Serve(its);
        _client = new TtrpcClient(ours);
        _thread = new Thread(_loop.Run) { IsBackground = true };
        _thread.Start();
    }

    internal volatile bool IsShutDown;

    /// <summary>Topics so far, exits with the process's id and status.</summary>
    internal IReadOnlyList<string> Seen
    {
        get
        {
            lock (_events)
            {
                return [.. _events.Select(e => e.Message is TaskExit exit ? $"{e.Topic} {exit.Id} {exit.ExitStatus}" : e.Topic)];
            }
        }
    }

    public void Publish(EventKind kind, IMessage message)
    {
        lock (_events)
        {
            _events.Add((kind.Topic, message));
        }
    }

    internal T Call<T>(string method, IMessage request, MessageParser<T> parser, string service = TaskService.Version2)
        where T : IMessage<T> => _client.Call(service, method, request, parser, Patience);

    internal void Call(string method, IMessage request) => _ = Call(method, request, Empty.Parser);

    internal CreateTaskResponse Create(Action<CreateTaskRequest>? change = null)
    {
        CreateTaskRequest request = new() { Id = Id, Bundle = _folder.Path };
        change?.Invoke(request);
        return Call("Create", request, CreateTaskResponse.Parser);
    }

    internal void Start(string exec = "") => _ = Call("Start", new StartRequest { Id = Id, ExecId = exec }, StartResponse.Parser);

    internal void Exec(string exec, string program = "sh") => Call("Exec", new Api.ExecProcessRequest
    {
        Id = Id,
        ExecId = exec,
        Spec = new Any { TypeUrl = "types.containerd.io/opencontainers/runtime-spec/1/Process", Value = ByteString.CopyFromUtf8($$"""{"args":["{{program}}"],"cwd":"/"}""") },
    });

    internal WaitResponse Wait(string exec = "") => Call("Wait", new WaitRequest { Id = Id, ExecId = exec }, WaitResponse.Parser);

    internal StateResponse State(string exec = "") => Call("State", new StateRequest { Id = Id, ExecId = exec }, StateResponse.Parser);

    internal DeleteResponse Delete(string exec = "") => Call("Delete", new DeleteRequest { Id = Id, ExecId = exec }, DeleteResponse.Parser);

    public void Dispose()
    {
        _client.Dispose();
        _loop.Stop();
        _thread.Join();
        _server.Dispose();
        _loop.Dispose();
        _log.Dispose();
        _folder.Dispose();
    }
}
