using MicroVm.Json;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Templates;
using MicroVm.Sandbox.Tracing;

namespace MicroVm.Sandbox.Proxies;

/// <summary>Kinds of <see cref="ProxyMessage"/>.</summary>
internal enum ProxyMessageKind
{
    /// <summary>A line for the caller's log.</summary>
    Log,

    /// <summary>To the sandbox: the container's proxy was started, or why it was not.</summary>
    Proxy,

    /// <summary>To the caller: everything is there; hooks and the pid file are the caller's part.</summary>
    Created,

    /// <summary>To the proxy process: the caller has done its part.</summary>
    Proceed,

    /// <summary>To the caller: the new state is written, the caller may end.</summary>
    Ready,

    /// <summary>To the caller: it failed, and nothing is left.</summary>
    Failed,

    /// <summary>To the caller: no template fits, and one is to be made in the background.</summary>
    NoTemplate,

    /// <summary>To the caller: the steps of the sandbox process and its VM.</summary>
    Trace,
}

/// <summary>A line between a command and the proxy process that it started.</summary>
internal sealed record ProxyMessage : IJsonDocument<ProxyMessage>
{
    // Before the kind is read.
    private const ProxyMessageKind NoKind = (ProxyMessageKind)(-1);

    /// <summary>Names of the kinds.</summary>
    internal static readonly NamedValues<ProxyMessageKind> Kinds = new(
        (ProxyMessageKind.Log, "log"),
        (ProxyMessageKind.Proxy, "proxy"),
        (ProxyMessageKind.Created, "created"),
        (ProxyMessageKind.Proceed, "proceed"),
        (ProxyMessageKind.Ready, "ready"),
        (ProxyMessageKind.Failed, "failed"),
        (ProxyMessageKind.NoTemplate, "noTemplate"),
        (ProxyMessageKind.Trace, "trace"));

    /// <summary>Names of the severities.</summary>
    internal static readonly NamedValues<LogLevel> Levels = new(
        (LogLevel.Debug, "debug"),
        (LogLevel.Info, "info"),
        (LogLevel.Warning, "warning"),
        (LogLevel.Error, "error"));

    /// <summary>What it is.</summary>
    public required ProxyMessageKind Kind { get; set; }

    /// <summary>For Log: the severity.</summary>
    public LogLevel Level { get; set; }

    /// <summary>For Log and Failed; for Proxy when there is none.</summary>
    public string? Text { get; set; }

    /// <summary>For Proxy: its process id.</summary>
    public int Pid { get; set; }

    /// <summary>For Created, and for Failed when there was one: the container's state.</summary>
    public ContainerState? State { get; set; }

    /// <summary>For Created: the process has a terminal.</summary>
    public bool Terminal { get; set; }

    /// <summary>For NoTemplate.</summary>
    public MissingTemplate? Template { get; set; }

    /// <summary>For Trace.</summary>
    public List<TraceTrack>? Tracks { get; set; }

    string? IJsonRecord.Missing => Kind == NoKind ? "kind" : null;

    /// <inheritdoc/>
    public static ProxyMessage Empty() => new() { Kind = NoKind };

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Kind = members.Named("kind"u8, Kind, Kinds);
        Level = members.Named("level"u8, Level, Levels);
        Terminal = members.Flag("terminal"u8, Terminal);
        Pid = members.Number("pid"u8, Pid);
        Text = members.Text("text"u8, Text);
        State = members.Object("state"u8, State, ContainerState.Empty);
        Template = members.Object("template"u8, Template);
        Tracks = members.Objects("tracks"u8, Tracks);
    }
}
