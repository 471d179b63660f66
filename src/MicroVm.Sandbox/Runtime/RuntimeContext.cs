using System.Diagnostics;
using MicroVm.Linux;
using MicroVm.Sandbox.Proxies;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Templates;
using MicroVm.Sandbox.Tracing;

namespace MicroVm.Sandbox.Runtime;

/// <summary>What the verbs of <see cref="ContainerRuntime"/> share.</summary>
internal sealed class RuntimeContext(RuntimeOptions options, RuntimeLog log)
{
    private readonly long _began = Stopwatch.GetTimestamp();

    /// <summary>The trace of the command.</summary>
    internal CommandTrace Trace { get; private set; } = new(null, 0);

    /// <summary>The log of the command.</summary>
    internal RuntimeLog Log => log;

    /// <summary>The containers' states.</summary>
    internal ContainerStore Store { get; } = new(options.Root);

    /// <summary>A container and its live status.</summary>
    /// <exception cref="SandboxException">There is none of that id.</exception>
    internal (ContainerState State, ContainerStatus Status) Find(string id)
    {
        ContainerState state = Store.Get(id);
        return (state, state.LiveStatus());
    }

    /// <summary>Asks the process that owns the container's VM.</summary>
    /// <exception cref="SandboxException">It refused, or the container does not run.</exception>
    internal ControlReply Ask(string id, ControlCall call)
    {
        try
        {
            return ControlClient.Call(Store.FolderOf(id), call);
        }
        catch (LinuxException e)
        {
            log.Write(LogLevel.Debug, e.Message);
            throw new SandboxException(RuntimeTexts.NotRunning, e);
        }
    }

    /// <summary>Runs hooks whose failure is a warning.</summary>
    internal void WarnOnly(Action hooks)
    {
        try
        {
            hooks();
        }
        catch (SandboxException e)
        {
            log.Write(LogLevel.Warning, e.Message);
        }
    }

    /// <summary>Has a template made beside the container, which runs by now, where the configuration asks for it.</summary>
    internal void MakeMissingTemplate(ProxyClient process)
    {
        if (process.MissingTemplate is not { } missing)
        {
            return;
        }

        try
        {
            TemplateProcess.Start(missing);
        }
        catch (LinuxException e)
        {
            log.Write(LogLevel.Warning, $"no template is made: {e.Message}");
        }
    }

    /// <summary>Records the command's steps from now on, for a file.</summary>
    internal void TraceInto(string file) => Trace = new CommandTrace(Path.GetFullPath(file), _began);

    /// <summary>Notes in the debug log when a step was done.</summary>
    internal void LogStep(string step) => log.Write(LogLevel.Debug, RuntimeLog.Stamped(step, _began));

    /// <summary>A request to a new process on the host, with what all of them need.</summary>
    internal ProxyRequest Request(string id) => new()
    {
        Root = Path.GetFullPath(options.Root),
        Id = id,
        SystemdCgroup = options.SystemdCgroup,
        LogFile = options.LogFile is null ? null : Path.GetFullPath(options.LogFile),
        LogJson = options.LogJson,
        Debug = options.Debug,
        Began = _began,
        Trace = Trace.Steps.IsOn,
    };
}
