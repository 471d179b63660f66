namespace MicroVm.Agent.Child;

/// <summary>What a child does about a system call's result.</summary>
public enum StepMode
{
    /// <summary>An error is reported with the step's id, and the child exits.</summary>
    Report = 0,

    /// <summary>The result does not matter.</summary>
    Ignore = 1,

    /// <summary>The child exits quietly unless the result is positive: a read whose other end is gone.</summary>
    Positive = 2,
}

/// <summary>What a step is for, as it is reported when it fails. The first ones are milestones, not failures.</summary>
public enum StepId
{
#pragma warning disable CS1591 // the names are the errors' texts in ChildReport
    Ready,
    Created,
    Wait,
    UserId,
    CgroupNamespace,
    ProcMount,
    JoinNamespace,
    Files,
    Session,
    Stdio,
    ControllingTerminal,
    Signals,
    Rlimit,
    Scheduler,
    IoPriority,
    Personality,
    NoNewPrivileges,
    Seccomp,
    BoundingSet,
    KeepCapabilities,
    Groups,
    Gid,
    Uid,
    WorkingDirectory,
    Capabilities,
    AmbientCapabilities,
    Umask,
    CloseFiles,
    Exec,
#pragma warning restore CS1591
}

/// <summary>A prepared system call, as child.S reads it (72 bytes).</summary>
public unsafe struct ChildStep
{
#pragma warning disable CS1591
    public nint Number;
    public fixed long Arguments[6];
    public nint* Store;
    public uint Id;
    public uint Mode;
#pragma warning restore CS1591
}
