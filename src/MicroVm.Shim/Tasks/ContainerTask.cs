using System.Text.Json;
using Google.Protobuf.WellKnownTypes;
using MicroVm.Linux.Native;
using MicroVm.Oci;
using MicroVm.Sandbox;
using MicroVm.Sandbox.Runtime;
using MicroVm.Shim.Api;
using MicroVm.Shim.Containers;
using MicroVm.Shim.Events;
using MicroVm.Shim.Streams;
using Process = MicroVm.Oci.Config.Process;

namespace MicroVm.Shim.Tasks;

/// <summary>
/// A container as containerd sees it, with its processes. Order of events: a start before its exit, and the first process's exit after
/// those of all others. Any thread; methods wait for the guest.
/// </summary>
internal sealed class ContainerTask
{
    private const uint CannotExecute = 255;
    private static readonly TimeSpan ExecsPatience = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan DrainPatience = TimeSpan.FromSeconds(10);
    private readonly IEventSink _events;
    private readonly ITaskContainer _container;
    private readonly IDisposable _mounts;
    private readonly ExecTable _execs = new();
    private readonly Thread _outOfMemory;
    private readonly TaskCompletionSource _drained = new();

    /// <summary>A container that was created.</summary>
    /// <param name="id">Its id.</param>
    /// <param name="bundle">Its bundle.</param>
    /// <param name="uris">Streams of its first process.</param>
    /// <param name="container">The container; owned from now on.</param>
    /// <param name="mounts">Its root file system's mounts; owned from now on.</param>
    /// <param name="events">Takes its events.</param>
    internal ContainerTask(string id, string bundle, StdioUris uris, ITaskContainer container, IDisposable mounts, IEventSink events)
    {
        (Id, Bundle, _container, _mounts, _events) = (id, bundle, container, mounts, events);
        Init = new TaskProcess("", uris) { Process = container.Init };
        _outOfMemory = new Thread(() => container.FollowOutOfMemory(() => events.Publish(Topics.OutOfMemory, new TaskOOM { ContainerId = id })), 256 << 10)
        {
            IsBackground = true,
            Name = "oom",
        };
    }

    /// <summary>The container's id.</summary>
    internal string Id { get; }

    /// <summary>Its bundle.</summary>
    internal string Bundle { get; }

    /// <summary>Its first process.</summary>
    internal TaskProcess Init { get; }

    /// <summary>The process on the host that stands for all of its processes.</summary>
    internal uint Pid => (uint)_container.Pid;

    /// <summary>Follows its end and its kills, once its creation is published.</summary>
    internal void Follow()
    {
        _outOfMemory.Start();
        new Thread(AwaitInit, 256 << 10) { IsBackground = true, Name = "wait" }.Start();
    }

    /// <summary>A process.</summary>
    /// <exception cref="Ttrpc.TtrpcException">NotFound.</exception>
    internal TaskProcess Find(string execId) =>
        execId.Length == 0 ? Init : _execs.Find(execId) ?? throw TaskErrors.NoProcess(execId);

    /// <summary>Starts the first process.</summary>
    internal void Start()
    {
        lock (Init.StartGate)
        {
            if (Init.Status != Status.Created)
            {
                throw TaskErrors.WrongState($"cannot start a {Name(Init.Status)} container: {Id}");
            }

            _container.Start();
            Init.Become(Status.Running);
            _events.Publish(Topics.Start, new TaskStart { ContainerId = Id, Pid = Pid });
        }
    }

    /// <summary>Adds a process, which is started by <see cref="StartExec"/>.</summary>
    internal TaskProcess AddExec(string execId, StdioUris uris, Any? spec)
    {
        TaskProcess exec = new(execId, uris) { Specification = ParseProcess(spec) };
        if (!_execs.TryAdd(exec, RefuseUnlessAlive))
        {
            throw TaskErrors.Exists("process", execId);
        }

        _events.Publish(Topics.ExecAdded, new TaskExecAdded { ContainerId = Id, ExecId = execId });
        return exec;
    }

    /// <summary>Starts a process that was added.</summary>
    internal void StartExec(TaskProcess exec)
    {
        lock (exec.StartGate)
        {
            if (exec.Status != Status.Created || exec.Process is not null)
            {
                throw TaskErrors.WrongState($"process {exec.ExecId} was started already");
            }

            _execs.Check(RefuseUnlessAlive);
            try
            {
                exec.Process = _container.Exec(exec.Specification!, exec.Uris, exec.Size);
            }
            catch (Exception)
            {
                exec.End(CannotExecute);
                throw;
            }

            exec.Become(Status.Running);
            _events.Publish(Topics.ExecStarted, new TaskExecStarted { ContainerId = Id, ExecId = exec.ExecId, Pid = Pid });
            _execs.StartWaiter(() => AwaitExec(exec));
        }
    }

    /// <summary>Sends a signal.</summary>
    internal void Kill(TaskProcess process, int signal, bool all)
    {
        if (process.Status == Status.Stopped)
        {
            throw TaskErrors.Ended(process.ExecId.Length == 0 ? Id : process.ExecId);
        }

        if (process == Init)
        {
            _container.Signal(signal, all);
        }
        else
        {
            (process.Process ?? throw TaskErrors.WrongState($"process {process.ExecId} is not started")).Signal(signal);
        }
    }

    /// <summary>Sets a terminal's size; of a process that is not started, the size that it starts with.</summary>
    internal static void Resize(TaskProcess process, uint width, uint height)
    {
        process.Size = (width, height);
        if (process.Status != Status.Stopped)
        {
            process.Process?.Resize(width, height);
        }
    }

    /// <summary>Freezes the container.</summary>
    internal void Pause()
    {
        if (Init.Status != Status.Running)
        {
            throw TaskErrors.WrongState($"cannot pause a {Name(Init.Status)} container: {Id}");
        }

        _container.Pause();
        Init.Become(Status.Paused);
        _events.Publish(Topics.Paused, new TaskPaused { ContainerId = Id });
    }

    /// <summary>Thaws it.</summary>
    internal void Resume()
    {
        if (Init.Status != Status.Paused)
        {
            throw TaskErrors.WrongState($"cannot resume a {Name(Init.Status)} container: {Id}");
        }

        _container.Resume();
        Init.Become(Status.Running);
        _events.Publish(Topics.Resumed, new TaskResumed { ContainerId = Id });
    }

    /// <summary>Changes limits.</summary>
    internal void Update(Any? resources)
    {
        RefuseEnded();
        byte[] json = resources?.Value.ToByteArray() ?? [];
        _container.Update(SpecReader.Parse(json, "resources", SpecDocument.Resources));
    }

    /// <summary>Its figures.</summary>
    internal ContainerFigures Statistics()
    {
        RefuseEnded();
        return _container.Statistics();
    }

    /// <summary>Forgets a process that has ended, or was never started.</summary>
    internal void DeleteExec(TaskProcess exec)
    {
        lock (exec.StartGate)
        {
            if (exec.Status is not (Status.Stopped or Status.Created))
            {
                throw TaskErrors.WrongState($"cannot delete a {Name(exec.Status)} process: {exec.ExecId}");
            }

            exec.End(0);
        }

        if (exec.Process is { } process)
        {
            _ = process.Drain(DrainPatience);
            process.Close();
        }

        _execs.Remove(exec.ExecId);
    }

    /// <summary>Removes the container, which has ended, or was never started.</summary>
    internal void Delete()
    {
        lock (Init.StartGate)
        {
            if (Init.Status is not (Status.Stopped or Status.Created))
            {
                throw TaskErrors.WrongState($"cannot delete a {Name(Init.Status)} container: {Id}");
            }

            if (Init.Status == Status.Created)
            {
                _container.End();
            }
        }

        // Published before the container's deletion.
        TaskCompletionSource ended = new();
        Init.WhenEnded(() => ended.TrySetResult());
        _ = ended.Task.Wait(DrainPatience);
        _ = _drained.Task.Wait(DrainPatience);
        if (!_execs.TryClose())
        {
            throw TaskErrors.NoTask(Id);
        }

        _container.Delete();
        _mounts.Dispose();
        _execs.CloseProcesses();
        _events.Publish(
            Topics.Delete, new TaskDelete { ContainerId = Id, Pid = Pid, ExitStatus = Init.ExitStatus, ExitedAt = Init.ExitedAt });
    }

    private static string Name(Status status) => status.ToString().ToLowerInvariant();

    private static Process ParseProcess(Any? spec)
    {
        byte[] json = spec?.Value.ToByteArray() ?? [];
        try
        {
            Process process = SpecReader.Parse(json, "process", SpecDocument.Process);
            SpecValidator.ValidateProcess(process);
            return process;
        }
        catch (JsonException e)
        {
            throw new SpecException($"process: {e.Message}", e);
        }
    }

    private void RefuseUnlessAlive(bool isDeleting)
    {
        if (isDeleting || Init.Status is not (Status.Running or Status.Created))
        {
            throw TaskErrors.WrongState($"cannot exec in a {Name(Init.Status)} container: {Id}");
        }
    }

    private void RefuseEnded()
    {
        if (Init.Status == Status.Stopped)
        {
            throw TaskErrors.Ended(Id);
        }
    }

    private void AwaitExec(TaskProcess exec)
    {
        TaskEnd end = exec.Process!.Wait();
        exec.Process.Settle();

        // The start's event is out when its lock is free.
        lock (exec.StartGate)
        {
            PublishExit(exec, end.Status);
        }
    }

    private void AwaitInit()
    {
        TaskEnd end = Init.Process!.Wait();
        _container.NoteEnd(end.OutOfMemory);
        Init.Process.Settle();
        _ = _outOfMemory.Join(ExecsPatience);

        lock (Init.StartGate)
        {
            if (!_execs.Join(ExecsPatience) || end.Lost)
            {
                // Processes that outlive the first one end with the container.
                _ = Init.Process.Drain(ExecsPatience);
                _container.End();
                _ = _execs.Join(DrainPatience);
            }

            PublishExit(Init, end.Status);
        }

        Init.Process.DrainAll();
        _execs.Drain(ExecsPatience);
        _container.End();
        _drained.SetResult();
    }

    private void PublishExit(TaskProcess process, uint status)
    {
        // The event first: whoever hears of the end by a call may ask for the next thing at once.
        _events.Publish(Topics.Exit, new TaskExit
        {
            ContainerId = Id,
            Id = process.ExecId.Length == 0 ? Id : process.ExecId,
            Pid = Pid,
            ExitStatus = status,
            ExitedAt = Timestamp.FromDateTime(DateTime.UtcNow),
        });
        process.End(status);
    }
}
