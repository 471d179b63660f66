using MicroVm.Agent.Child;
using MicroVm.Agent.Stdio;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Agent.Containers;

/// <summary>Where a process is in its life.</summary>
public enum ProcessState
{
    /// <summary>Being set up; nobody else may use it yet.</summary>
    Creating,

    /// <summary>Waits to exec.</summary>
    Created,

    /// <summary>Told to exec; whether it did is not known yet.</summary>
    Starting,

    /// <summary>Has exec'd.</summary>
    Running,

    /// <summary>Has ended.</summary>
    Exited,
}

/// <summary>A container's init or another process in it. Lives on the loop's thread, except for its setup. Owns its descriptors.</summary>
public sealed class ContainerProcess : IDisposable
{
    /// <summary>Creates the record.</summary>
    /// <param name="container">The container.</param>
    /// <param name="execId">Empty for the init.</param>
    /// <param name="spec">What to run.</param>
    /// <param name="stdio">Its streams, taken over.</param>
    public ContainerProcess(Container container, string execId, Process spec, ProcessStdio stdio)
    {
        Container = container;
        ExecId = execId;
        Spec = spec;
        Stdio = stdio;
    }

    /// <summary>The container that the process is in.</summary>
    public Container Container { get; }

    /// <summary>The process's name; empty for the init.</summary>
    public string ExecId { get; }

    /// <summary>What it runs.</summary>
    public Process Spec { get; }

    /// <summary>Its streams.</summary>
    public ProcessStdio Stdio { get; }

    /// <summary>The child, from clone to the end.</summary>
    public ClonedChild? Child { get; set; }

    /// <summary>Where it is in its life.</summary>
    public ProcessState State { get; set; }

    /// <summary>The executable that was found, for messages.</summary>
    public string Executable { get; set; } = "";

    /// <summary>Calls that wait for the end.</summary>
    public List<TtrpcCall> Waiters { get; } = [];

    /// <summary>How it ended, once <see cref="State"/> is Exited.</summary>
    public WaitProcessResponse? Exit { get; private set; }

    /// <summary>When its exec, and then its run, began (<see cref="Linux.Tracing.StepRecorder.Now"/>); 0 before that.</summary>
    public long StepBegan { get; set; }

    /// <summary>wait(2)'s status of a child that ended before its setup was finished on the loop.</summary>
    public int? EarlyStatus { get; set; }

    /// <summary>The signal that a caller sent to end a process that had not exec'd yet, and which is its exit's reason.</summary>
    public uint EndedBySignal { get; set; }

    /// <summary>
    /// Notes what came of the exec. One that execve(2) refused is the process's own to tell, as with runc: it writes why to its standard
    /// error, and exits with 1.
    /// </summary>
    /// <param name="report">What the child reported; null when it exec'd, or was killed.</param>
    /// <returns>Why a step before execve(2) failed, in a sentence; else null.</returns>
    public string? NoteExec(ChildReport? report)
    {
        string? why = report?.Describe(Executable, Spec.Cwd);
        if (report is { Id: not StepId.Exec })
        {
            return why;
        }

        if (why is null)
        {
            Stdio.Executed();
        }
        else
        {
            Stdio.FailExec(why);
        }

        return null;
    }

    /// <summary>Records the end and answers who waits.</summary>
    /// <param name="status">wait(2)'s status.</param>
    /// <param name="oomKilled">The OOM killer took a process of the container.</param>
    public void SetExited(int status, bool oomKilled)
    {
        uint signal = (uint)status & 0x7f;
        if (signal != 0 && EndedBySignal != 0)
        {
            signal = EndedBySignal;
        }

        Exit = new WaitProcessResponse
        {
            Signal = signal,
            ExitStatus = signal != 0 ? 128 + (int)signal : (status >> 8) & 0xff,
            OomKilled = oomKilled,
            ExitedAtNanoseconds = Now(),
        };
        State = ProcessState.Exited;
        Stdio.CloseInput();
        Child?.Dispose();
        foreach (TtrpcCall call in Waiters)
        {
            call.Complete(Exit);
        }

        Waiters.Clear();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Child?.Dispose();
        Stdio.Dispose();
    }

    private static unsafe long Now()
    {
        Libc.timespec now;
        Check.Result(Libc.clock_gettime(Libc.CLOCK_REALTIME, &now), "clock_gettime");
        return (now.tv_sec * 1_000_000_000) + now.tv_nsec;
    }
}
