using MicroVm.Linux.Child;

namespace MicroVm.Agent.Child;

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
    CpuAffinity,
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
    WorkingDirectoryOutside,
    Launch,
    FileSize,

    // As child.S has it.
    Forked = 1000,
#pragma warning restore CS1591
}

/// <summary>Steps under the agent's names.</summary>
public static unsafe class ChildProgramSteps
{
    /// <summary>Appends a system call.</summary>
    public static ChildStep* Add(
        this ChildProgram program, StepId id, StepMode mode, long number, nint a0 = 0, nint a1 = 0, nint a2 = 0, nint a3 = 0, nint a4 = 0)
    {
        ArgumentNullException.ThrowIfNull(program);
        return program.Add((uint)id, mode, number, a0, a1, a2, a3, a4);
    }
}
