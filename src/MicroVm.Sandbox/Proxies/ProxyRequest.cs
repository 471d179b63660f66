using MicroVm.Json;
using MicroVm.Oci.Config;
using MicroVm.Sandbox.Runtime;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Sandbox.Proxies;

/// <summary>The order to a new proxy process, sent through a pipe.</summary>
internal sealed record ProxyRequest : IJsonDocument<ProxyRequest>
{
    /// <summary>Folder of the containers' states.</summary>
    public required string Root { get; set; }

    /// <summary>The container's id.</summary>
    public required string Id { get; set; }

    /// <summary>Absolute path of the bundle; null for another process in a container that exists.</summary>
    public string? Bundle { get; set; }

    /// <summary>Bytes of the configuration: the bundle's for a creation, else the kept one. They travel in a file of their own.</summary>
    public byte[] Configuration { get; init; } = [];

    /// <summary>Size and files of the VM.</summary>
    public VmOptions? Vm { get; set; }

    /// <summary>For exec: the process.</summary>
    public Process? Process { get; set; }

    /// <summary>For exec: a cgroup below the container's, which exists; null for the container's own.</summary>
    public string? Cgroup { get; set; }

    /// <summary>The caller stays, and the container ends with it.</summary>
    public bool Foreground { get; set; }

    /// <summary>Nothing is left of the container once it has ended.</summary>
    public bool Transient { get; set; }

    /// <summary>The caller's terminal is <see cref="ProxyHandshake.TerminalFd"/>: no standard stream is one.</summary>
    public bool HasTerminalFd { get; set; }

    /// <summary>Socket that wants the pseudo-terminal's master.</summary>
    public string? ConsoleSocket { get; set; }

    /// <summary>cgroupsPath has systemd's form.</summary>
    public bool SystemdCgroup { get; set; }

    /// <summary>File of the log, for what happens once the caller is gone; nowhere when null.</summary>
    public string? LogFile { get; set; }

    /// <summary>The log is JSON lines.</summary>
    public bool LogJson { get; set; }

    /// <summary>Debug lines are wanted.</summary>
    public bool Debug { get; set; }

    /// <summary><see cref="System.Diagnostics.Stopwatch"/> ticks at which the command began, for the log.</summary>
    public long Began { get; set; }

    /// <summary>The steps of the start are wanted.</summary>
    public bool Trace { get; set; }

    string? IJsonRecord.Missing => Root is null ? "root" : Id is null ? "id" : null;

    /// <inheritdoc/>
    public static ProxyRequest Empty() => new() { Root = "", Id = "" };

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Root = members.Text("root"u8, Root)!;
        Id = members.Text("id"u8, Id)!;
        Bundle = members.Text("bundle"u8, Bundle);
        Vm = members.Object("vm"u8, Vm);
        Process = members.Object("process"u8, Process);
        Cgroup = members.Text("cgroup"u8, Cgroup);
        Foreground = members.Flag("foreground"u8, Foreground);
        Transient = members.Flag("transient"u8, Transient);
        HasTerminalFd = members.Flag("hasTerminalFd"u8, HasTerminalFd);
        ConsoleSocket = members.Text("consoleSocket"u8, ConsoleSocket);
        SystemdCgroup = members.Flag("systemdCgroup"u8, SystemdCgroup);
        LogFile = members.Text("logFile"u8, LogFile);
        LogJson = members.Flag("logJson"u8, LogJson);
        Debug = members.Flag("debug"u8, Debug);
        Began = members.Number("began"u8, Began);
        Trace = members.Flag("trace"u8, Trace);
    }
}
