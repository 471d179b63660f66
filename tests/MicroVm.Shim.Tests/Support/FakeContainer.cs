using MicroVm.Oci.Config;
using MicroVm.Sandbox;
using MicroVm.Sandbox.Runtime;
using MicroVm.Shim.Containers;
using MicroVm.Shim.Streams;

namespace MicroVm.Shim.Tests.Support;

/// <summary>A container without a VM, whose processes end when a test says so.</summary>
internal sealed class FakeContainer : ITaskContainer
{
    private readonly TaskCompletionSource _ended = new();

    internal FakeProcess First { get; } = new();

    internal List<FakeProcess> Execs { get; } = [];

    internal bool Deleted { get; private set; }

    internal bool IsEnded { get; private set; }

    /// <summary>Done when it is started, before the call returns.</summary>
    internal Action? WhenStarted { get; init; }

    /// <summary>Done when an exec is started, before the call returns.</summary>
    internal Action<FakeProcess>? WhenExecuted { get; init; }

    internal int KillsForMemory { get; init; }

    public int Pid => 4711;

    public ITaskProcess Init => First;

    public void Start() => WhenStarted?.Invoke();

    public ITaskProcess Exec(Process process, StdioUris uris, (uint Width, uint Height) size)
    {
        FakeProcess exec = process.Args![0] == "missing" ? throw new SandboxException("exec: \"missing\": executable file not found in $PATH") : new FakeProcess { Size = size };
        Execs.Add(exec);
        WhenExecuted?.Invoke(exec);
        return exec;
    }

    public void Signal(int signal, bool all) => First.End(128 + (uint)signal);

    public void Pause()
    {
    }

    public void Resume()
    {
    }

    public void Update(Resources change)
    {
    }

    public ContainerFigures Statistics() => new(new Dictionary<string, string> { ["pids.current"] = "3\n" }, []);

    public void FollowOutOfMemory(Action killed)
    {
        for (int i = 0; i < KillsForMemory; i++)
        {
            killed();
        }

        _ended.Task.Wait();
    }

    public void NoteEnd(bool outOfMemory) => _ended.TrySetResult();

    public void End()
    {
        IsEnded = true;
        First.End(TaskEnd.WithVm.Status);
        Execs.ForEach(e => e.End(TaskEnd.WithVm.Status));
    }

    public void Delete()
    {
        End();
        Deleted = true;
    }
}
