using System.Collections;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Streams;

namespace MicroVm.Sandbox.StandIn;

/// <summary>A command's side of a stand-in that it starts: same executable, own session, same standard streams.</summary>
internal sealed class StandInProcess : IDisposable
{
    private readonly LineChannel _channel;
    private readonly RuntimeLog _log;

    private StandInProcess(SpawnedProcess process, LineChannel channel, RuntimeLog log)
    {
        Process = process;
        _channel = channel;
        _log = log;
    }

    /// <summary>The stand-in.</summary>
    internal SpawnedProcess Process { get; }

    /// <summary>The container of a stand-in that failed, which is undone; null when there was none yet.</summary>
    internal ContainerState? Failed { get; private set; }

    /// <summary>Starts a stand-in. Besides the standard streams it inherits nothing of ours.</summary>
    /// <exception cref="SandboxException">It cannot be started.</exception>
    internal static StandInProcess Start(StandInRequest request, RuntimeLog log)
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
            StandInHandshake.Offer(mine);
            Spawn spawn = new()
            {
                File = Environment.ProcessPath!,
                Arguments = StandInArguments.Of(request, request.Configuration),
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
            if (terminal is not null)
            {
                spawn.Add(terminal);
            }

            StandInProcess process = new(spawn.Start(), new LineChannel(mine), log);
            itsRequest.Dispose();

            // Put into words while the program starts.
            _ = Pipe.TryWrite(ourRequest, HandJson.Write(request));
            return process;
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"the container's process cannot be started: {e.Message}", e);
        }
    }

    /// <summary>Logs what the stand-in tells, up to a message of the kind waited for.</summary>
    /// <exception cref="SandboxException">The stand-in failed, or is gone.</exception>
    internal StandInMessage Expect(StandInMessageKind kind)
    {
        while (Next() is { } message)
        {
            if (message.Kind == kind)
            {
                return message;
            }

            if (message.Kind == StandInMessageKind.Failed)
            {
                Failed = message.State;
                throw new SandboxException(message.Text ?? "");
            }
        }

        ExitStatus? exit = Process.Wait(TimeSpan.FromSeconds(10));
        throw new SandboxException(exit switch
        {
            { Signal: not 0 } => $"the container's process was ended by signal {exit.Value.Signal}",
            not null => $"the container's process exited with status {exit.Value.Status}",
            null => "the container's process does not answer",
        });
    }

    /// <summary>Tells the stand-in that the caller has done its part.</summary>
    internal void Proceed() => _ = _channel.Send(new StandInMessage { Kind = StandInMessageKind.Proceed });

    /// <summary>Goes without a word: the stand-in then undoes everything, which is waited for.</summary>
    internal void Abandon()
    {
        _channel.Dispose();
        _ = Process.Wait(TimeSpan.FromSeconds(30));
    }

    /// <summary>Logs what the stand-in tells until it ends; returns how it ended, and why when it failed.</summary>
    internal (ExitStatus Exit, string? Failure) WaitForEnd()
    {
        string? failure = null;
        while (Next() is { } message)
        {
            failure = message.Kind == StandInMessageKind.Failed ? message.Text : failure;
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
        Process.Dispose();
    }

    private static List<string> EnvironmentFor(string id)
    {
        List<string> environment = [$"{StandInArguments.Marker}={id}"];
        foreach (DictionaryEntry variable in Environment.GetEnvironmentVariables())
        {
            if (variable.Key is not StandInArguments.Marker)
            {
                environment.Add($"{variable.Key}={variable.Value}");
            }
        }

        return environment;
    }

    private StandInMessage? Next()
    {
        while (_channel.Receive<StandInMessage>() is { } message)
        {
            if (message.Kind != StandInMessageKind.Log)
            {
                return message;
            }

            _log.Write(message.Level, message.Text ?? "");
        }

        return null;
    }
}
