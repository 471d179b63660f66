using System.Text.Json.Serialization;
using MicroVm.Oci.Config;
using MicroVm.Sandbox.Runtime;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Sandbox.StandIn;

/// <summary>The order to a new stand-in, sent through a pipe.</summary>
internal sealed partial record StandInRequest : IHandJson<StandInRequest>
{
    /// <summary>Folder of the containers' states.</summary>
    public required string Root { get; init; }

    /// <summary>The container's id.</summary>
    public required string Id { get; init; }

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

    /// <summary>The caller's terminal is <see cref="StandInHandshake.TerminalFd"/>: no standard stream is one.</summary>
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
}

/// <summary>Source-generated JSON between commands and stand-ins, for what is not sent often.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(List<InterfaceCounters>))]
internal sealed partial class StandInJson : JsonSerializerContext;
