using MicroVm.Linux;
using MicroVm.Linux.Tracing;
using MicroVm.Sandbox.State;

namespace MicroVm.Sandbox.Proxies;

/// <summary>A proxy process's side of the command that started it, which may end at any time.</summary>
internal sealed class ProxyCaller : IDisposable
{
    private readonly LineChannel _channel;
    private readonly RuntimeLog? _file;
    private readonly bool _debug;
    private readonly long _began;
    private volatile bool _gone;
    private bool _watched;

    internal ProxyCaller(SafeFd socket, ProxyRequest request)
    {
        _channel = new LineChannel(socket);
        _debug = request.Debug;
        _began = request.Began;
        Trace = request.Trace ? new StepRecorder(isOn: true) : StepRecorder.Off;
        _file = request.LogFile is null ? null : RuntimeLog.Open(request.LogFile, request.LogJson, request.Debug);
    }

    /// <summary>This process's steps, where the caller wants them.</summary>
    internal StepRecorder Trace { get; }

    /// <summary>Writes to the caller's log while there is a caller, then to the log's file.</summary>
    internal void Log(LogLevel level, string text)
    {
        if (level == LogLevel.Debug)
        {
            if (!_debug)
            {
                return;
            }

            text = RuntimeLog.Stamped(text, _began);
        }

        if (_gone || !Send(new ProxyMessage { Kind = ProxyMessageKind.Log, Level = level, Text = text }))
        {
            _file?.Write(level, text);
        }
    }

    /// <summary>Sends a message; false when the caller is gone.</summary>
    internal bool Send(ProxyMessage message) => _channel.Send(message);

    /// <summary>Tells why it failed: to the caller, else to the log's file.</summary>
    internal void Fail(string text, ContainerState? undone = null)
    {
        if (_gone || !Send(new ProxyMessage { Kind = ProxyMessageKind.Failed, Text = text, State = undone }))
        {
            _file?.Write(LogLevel.Error, text);
        }
    }

    /// <summary>Waits until the caller has done its part; false when it is gone.</summary>
    internal bool WaitForProceed() =>
        _channel.Receive<ProxyMessage>() is { Kind: ProxyMessageKind.Proceed };

    /// <summary>Waits for the proxy, which the caller starts.</summary>
    /// <exception cref="SandboxException">It cannot be started, or the caller is gone.</exception>
    internal ProcessIdentity WaitForProxy() => _channel.Receive<ProxyMessage>() switch
    {
        { Kind: ProxyMessageKind.Proxy, Pid: > 0 and var pid } => ProcessIdentity.Of(pid) ?? throw new SandboxException("the container's process on the host has ended"),
        { Kind: ProxyMessageKind.Proxy, Text: { } problem } => throw new SandboxException(problem),
        _ => throw new SandboxException("interrupted"),
    };

    /// <summary>Calls <paramref name="ended"/> when the caller ends, on a thread of its own.</summary>
    internal void Watch(Action ended)
    {
        _watched = true;
        new Thread(() =>
        {
            while (_channel.Receive<ProxyMessage>() is not null)
            {
            }

            // Ended here: nobody is to be told.
            if (!_gone)
            {
                ended();
            }

            _channel.Dispose();
        }, 128 << 10)
        { IsBackground = true, Name = "caller" }.Start();
    }

    /// <summary>Releases the caller: later messages go to the log's file only.</summary>
    internal void Release()
    {
        _gone = true;
        if (_watched)
        {
            _channel.HangUp();
        }
        else
        {
            _channel.Dispose();
        }
    }

    public void Dispose()
    {
        Release();
        _file?.Dispose();
    }
}
