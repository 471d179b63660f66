using System.Collections;
using MicroVm.Json;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Oci.Config;
using MicroVm.Sandbox.Pods;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Streams;
using MicroVm.Sandbox.Templates;
using MicroVm.Sandbox.Tracing;

namespace MicroVm.Sandbox.Proxies;

/// <summary>
/// A command's side of a process that it has on the host: for exec, the proxy process itself, which is the same executable; for a container its
/// proxy, and the sandbox process that has its VM, which the command starts unless the container joins another's.
/// </summary>
internal sealed class ProxyClient : IDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);
    private readonly SpawnedProcess? _sandbox;
    private readonly LineChannel _channel;
    private readonly RuntimeLog _log;
    private ProxyLauncher? _launcher;

    private ProxyClient(SpawnedProcess? sandbox, SpawnedProcess? process, LineChannel channel, RuntimeLog log)
    {
        _sandbox = sandbox;
        Process = process!;
        _channel = channel;
        _log = log;
    }

    /// <summary>The process that callers know: the proxy or the proxy process.</summary>
    internal SpawnedProcess Process { get; private set; }

    /// <summary>The container of a creation that failed, which is undone; null when there was none yet.</summary>
    internal ContainerState? Failed { get; private set; }

    /// <summary>Starts a proxy process for exec, in a session of its own, with the same standard streams. It inherits nothing else of ours.</summary>
    /// <exception cref="SandboxException">It cannot be started.</exception>
    internal static ProxyClient Start(ProxyRequest request, RuntimeLog log)
    {
        (SpawnedProcess process, LineChannel channel) = Launch(request, ProxyArguments.Of(request, request.Configuration), null);
        return new ProxyClient(null, process, channel, log);
    }

    /// <summary>Starts a sandbox process for a container with a VM of its own, and the container's proxy.</summary>
    /// <exception cref="SandboxException">The sandbox process cannot be started; it reports all other failures.</exception>
    internal static ProxyClient Create(ProxyRequest request, Spec spec, RuntimeLog log)
    {
        (SafeFd one, SafeFd other) = UnixSocket.Pair();
        using SafeFd proxyOfSandbox = one, socketOfProxy = other;
        (SpawnedProcess sandbox, LineChannel channel) = Launch(request, ["microvm", "sandbox", request.Id], proxyOfSandbox);
        ProxyClient process = new(sandbox, null, channel, log);
        ProxyMessage message = new() { Kind = ProxyMessageKind.Proxy };
        try
        {
            process._launcher = ProxyLauncher.Start(spec, request.Bundle!, socketOfProxy, ProxyArguments.Of(request, request.Configuration), request.Id);
            process.Process = process._launcher.Process;
            message.Pid = process.Process.Pid;
        }
        catch (LinuxException e)
        {
            // The sandbox process reports every other error of a bundle.
            message.Text = e.Message;
        }

        _ = channel.Send(message);
        return process;
    }

    /// <summary>Asks the sandbox process of another container to take this one, and starts its proxy.</summary>
    /// <exception cref="Oci.SpecException">The bundle is malformed, or asks for what is not supported.</exception>
    /// <exception cref="SandboxException">The VM's process refuses, or something of the host cannot be opened.</exception>
    internal static ProxyClient Join(ProxyRequest request, Spec spec, JoinTarget target, string folder, RuntimeLog log)
    {
        (ResolvedContainer Container, ContainerState State) prepared = JoinClient.Prepare(request, spec, target, log);
        using ResolvedContainer container = prepared.Container;
        ProxyLauncher? launcher = null;
        try
        {
            (SafeFd one, SafeFd other) = UnixSocket.Pair();
            using SafeFd proxyOfSandbox = one, socketOfProxy = other;
            launcher = ProxyLauncher.Start(spec, request.Bundle!, socketOfProxy, ProxyArguments.Of(request, request.Configuration), request.Id);
            ProcessIdentity proxy = ProcessIdentity.Of(launcher.Process.Pid) ?? throw new SandboxException("the container's process on the host has ended");
            prepared.State = prepared.State with { Init = proxy };
            LineChannel channel = JoinClient.Ask(folder, request, prepared, proxyOfSandbox);
            return new ProxyClient(null, launcher.Process, channel, log) { _launcher = launcher };
        }
        catch (Exception e) when (e is SandboxException or LinuxException)
        {
            _ = launcher?.Process.Kill();
            launcher?.Dispose();
            throw e as SandboxException ?? new SandboxException(e.Message, e);
        }
    }

    /// <summary>What the sandbox process reported of its steps, once the container has ended; null when nothing.</summary>
    internal IReadOnlyList<TraceTrack>? Tracks { get; private set; }

    /// <summary>The template that is to be made in the background; null where none is.</summary>
    internal MissingTemplate? MissingTemplate { get; private set; }

    /// <summary>Shows the container's volumes and processes to callers that look at its proxy.</summary>
    /// <exception cref="LinuxException">A volume cannot be attached.</exception>
    internal void CompleteView() => _launcher?.Complete(text => _log.Write(LogLevel.Debug, text));

    /// <summary>Ends an attempt, from within a signal's handler, too.</summary>
    internal void Interrupt()
    {
        if (_sandbox is not null)
        {
            _sandbox.Signal(Libc.SIGTERM);
        }
        else if (_launcher is not null)
        {
            // Without its proxy the container ends.
            Process.Signal(Libc.SIGKILL);
        }
        else
        {
            Process.Signal(Libc.SIGTERM);
        }
    }

    private static (SpawnedProcess Process, LineChannel Channel) Launch(ProxyRequest request, IReadOnlyList<string> arguments, SafeFd? proxy)
    {
        try
        {
            // Only this process can reach the terminal of its session.
            using SafeFd? terminal = request.Foreground && CallerTerminal.OfStreams() is null ? CallerTerminal.Find() : null;
            request.HasTerminalFd = terminal is not null;
            (SafeFd read, SafeFd write) = Pipe.Create();
            using SafeFd itsRequest = read, ourRequest = write;
            (SafeFd mine, SafeFd other) = UnixSocket.Pair();
            using SafeFd its = other;
            using SafeFd configuration = MemoryFile.Create("configuration", request.Configuration);
            ProxyHandshake.Offer(mine);
            Spawn spawn = new()
            {
                File = Environment.ProcessPath!,
                Arguments = arguments,
                Environment = EnvironmentFor(request.Id),
                NewSession = true,
                WorkingDirectory = "/",
            };
            spawn.Add(HostStreams.Input);
            spawn.Add(HostStreams.Output);
            spawn.Add(HostStreams.Error);
            spawn.Add(itsRequest);
            spawn.Add(its);
            spawn.Add(configuration);
            using SafeFd nothing = SafeFd.From(Libc.open("/dev/null", Libc.O_RDWR | Libc.O_CLOEXEC, 0), "open", "/dev/null");
            spawn.Add(proxy ?? nothing);
            if (terminal is not null)
            {
                spawn.Add(terminal);
            }

            SpawnedProcess process = spawn.Start();
            itsRequest.Dispose();

            // Put into words while the program starts.
            _ = Pipe.TryWrite(ourRequest, JsonRecords.Write(request));
            return (process, new LineChannel(mine));
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"the container's process cannot be started: {e.Message}", e);
        }
    }

    /// <summary>Logs what the proxy process tells, up to a message of the kind waited for.</summary>
    /// <exception cref="SandboxException">The proxy process failed, or is gone.</exception>
    internal ProxyMessage Expect(ProxyMessageKind kind)
    {
        while (Next() is { } message)
        {
            if (message.Kind == kind)
            {
                return message;
            }

            if (message.Kind == ProxyMessageKind.Failed)
            {
                Failed = message.State;
                throw new SandboxException(message.Text ?? "");
            }
        }

        ExitStatus? exit = (_sandbox ?? Process).Wait(TimeSpan.FromSeconds(10));
        throw new SandboxException(exit switch
        {
            { Signal: not 0 } => $"the container's process was ended by signal {exit.Value.Signal}",
            not null => $"the container's process exited with status {exit.Value.Status}",
            null => "the container's process does not answer",
        });
    }

    /// <summary>Tells the proxy process that the caller has done its part.</summary>
    internal void Proceed() => _ = _channel.Send(new ProxyMessage { Kind = ProxyMessageKind.Proceed });

    /// <summary>Goes without a word: the proxy process then undoes everything, which is waited for.</summary>
    internal void Abandon()
    {
        _channel.Dispose();
        _ = _sandbox?.Wait(Patience);
        if (_launcher is not null || _sandbox is null)
        {
            _ = Process.Wait(Patience);
        }
    }

    /// <summary>Logs what the proxy process tells until it ends; returns how it ended, and why when it failed.</summary>
    internal (ExitStatus Exit, string? Failure) WaitForEnd()
    {
        string? failure = null;
        while (Next() is { } message)
        {
            failure = message.Kind == ProxyMessageKind.Failed ? message.Text : failure;
        }

        while (true)
        {
            if (Process.Wait(TimeSpan.FromDays(1)) is { } exit)
            {
                return (exit, failure);
            }
        }
    }

    public void Dispose()
    {
        _channel.Dispose();
        _launcher?.Dispose();
        _sandbox?.Dispose();
        Process?.Dispose();
    }

    private static List<string> EnvironmentFor(string id)
    {
        List<string> environment = OwnEnvironment();
        environment.Insert(0, $"{ProxyArguments.Marker}={id}");
        return environment;
    }

    /// <summary>This process's environment, for another of the executable's processes.</summary>
    internal static List<string> OwnEnvironment()
    {
        List<string> environment = [];
        foreach (DictionaryEntry variable in Environment.GetEnvironmentVariables())
        {
            if (variable.Key is not ProxyArguments.Marker)
            {
                environment.Add($"{variable.Key}={variable.Value}");
            }
        }

        return environment;
    }

    private ProxyMessage? Next()
    {
        while (_channel.Receive<ProxyMessage>() is { } message)
        {
            switch (message.Kind)
            {
                case ProxyMessageKind.Log:
                    _log.Write(message.Level, message.Text ?? "");
                    break;
                case ProxyMessageKind.Trace:
                    Tracks = message.Tracks;
                    break;
                case ProxyMessageKind.NoTemplate:
                    MissingTemplate = message.Template;
                    break;
                default:
                    return message;
            }
        }

        return null;
    }
}
