namespace MicroVm.InstructionEmulator;

/// <summary>What became of an instruction that KVM could not emulate.</summary>
public enum AssistResult
{
    /// <summary>Done, or its fault injected: run the vCPU on.</summary>
    Completed,

    /// <summary>It cannot be completed here either: the guest cannot go on.</summary>
    Unsupported,
}

/// <summary>What an instruction's handler did.</summary>
internal enum Outcome
{
    /// <summary>Executed: RIP moves behind it.</summary>
    Done,

    /// <summary>Faulted: the exception noted by <see cref="AssistCpu"/> is injected with RIP at the instruction.</summary>
    Fault,

    /// <summary>Trapped: RIP moves behind it, then the exception noted is injected.</summary>
    Trap,

    /// <summary>Not possible; <see cref="AssistCpu.FailureReason"/> says why.</summary>
    Unsupported,
}
