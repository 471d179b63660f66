using MicroVm.Json;

namespace MicroVm.Sandbox.Proxies;

/// <summary>What a command asks a container's process on the host to do.</summary>
internal enum ControlVerb
{
    /// <summary>Lets the init exec.</summary>
    Start,

    /// <summary>Sends a signal to the init, or to all processes.</summary>
    Signal,

    /// <summary>Freezes the container.</summary>
    Pause,

    /// <summary>Thaws it.</summary>
    Resume,

    /// <summary>Changes limits in the guest, on the host and in the kept configuration.</summary>
    Update,

    /// <summary>Reads cgroup files of the guest.</summary>
    Stats,

    /// <summary>Waits a few seconds for processes that are killed for want of memory.</summary>
    OutOfMemory,

    /// <summary>Takes one more container into the VM; descriptors follow (Pods.JoinFiles).</summary>
    Join,

    /// <summary>Reads the steps of the sandbox process and its VM.</summary>
    Trace,
}

/// <summary>Names of <see cref="ControlVerb"/>.</summary>
internal static class ControlVerbs
{
    internal static readonly NamedValues<ControlVerb> Names = new(
        (ControlVerb.Start, "start"),
        (ControlVerb.Signal, "signal"),
        (ControlVerb.Pause, "pause"),
        (ControlVerb.Resume, "resume"),
        (ControlVerb.Update, "update"),
        (ControlVerb.Stats, "stats"),
        (ControlVerb.OutOfMemory, "outOfMemory"),
        (ControlVerb.Join, "join"),
        (ControlVerb.Trace, "trace"));
}
