namespace MicroVm.Linux.Child;

/// <summary>What a child does about a system call's result.</summary>
public enum StepMode
{
    /// <summary>An error is reported with the step's id, and the child exits.</summary>
    Report = 0,

    /// <summary>The result does not matter.</summary>
    Ignore = 1,

    /// <summary>The child exits quietly unless the result is positive: a read whose other end is gone.</summary>
    Positive = 2,

    /// <summary>
    /// clone3(2), as <see cref="ChildProgram.AddFork"/> has it: the child goes on; the parent reports that there is one,
    /// and waits to be killed. In a process that runs <see cref="ChildCode.Executable"/> only.
    /// </summary>
    Fork = 3,

    /// <summary>getcwd(2): as <see cref="Report"/>, and ENOENT unless the answer is an absolute path ("(unreachable)" begins one that is not).</summary>
    Directory = 4,
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
