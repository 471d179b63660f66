using Google.Protobuf;
using Google.Protobuf.WellKnownTypes;
using MicroVm.Linux;
using MicroVm.Shim.Api;
using MicroVm.Shim.Bootstrap;
using MicroVm.Shim.Streams;
using MicroVm.Ttrpc;

namespace MicroVm.Shim.Tasks;

/// <summary>
/// The Task service. The loop's thread reads a call and answers what needs no waiting; what waits for the guest has a thread of its own,
/// so that calls do not hold one another up.
/// </summary>
internal sealed class TaskService
{
    internal const string Version2 = "containerd.task.v2.Task";
    internal const string Version3 = "containerd.task.v3.Task";
    private readonly TaskTable _tasks;
    private readonly EventLoop _loop;
    private readonly Action _shutDown;
    private readonly bool _unified = File.Exists("/sys/fs/cgroup/cgroup.controllers");

    /// <summary>Serves the tasks of a table.</summary>
    /// <param name="tasks">The tasks.</param>
    /// <param name="loop">The loop that calls come from.</param>
    /// <param name="shutDown">Called on the loop's thread when containerd shuts the shim down and no task is left.</param>
    internal TaskService(TaskTable tasks, EventLoop loop, Action shutDown) => (_tasks, _loop, _shutDown) = (tasks, loop, shutDown);

    /// <summary>The service under one of its names.</summary>
    internal ITtrpcService As(string name) => new Named(name, this);

    private bool Invoke(TtrpcCall call)
    {
        ByteString payload = call.Request.Payload;
        switch (call.Request.Method)
        {
            case "State":
                StateRequest state = StateRequest.Parser.ParseFrom(payload);
                call.Complete(State(_tasks.Find(state.Id), state.ExecId));
                break;
            case "Create":
                CreateTaskRequest create = CreateTaskRequest.Parser.ParseFrom(payload);
                Run(call, () => new CreateTaskResponse { Pid = _tasks.Create(create).Pid });
                break;
            case "Start":
                Start(call, StartRequest.Parser.ParseFrom(payload));
                break;
            case "Delete":
                Delete(call, DeleteRequest.Parser.ParseFrom(payload));
                break;
            case "Pids":
                PidsResponse pids = new();
                pids.Processes.Add(new ProcessInfo { Pid = _tasks.Find(PidsRequest.Parser.ParseFrom(payload).Id).Pid });
                call.Complete(pids);
                break;
            case "Pause":
                OnTask(call, PauseRequest.Parser.ParseFrom(payload).Id, t => t.Pause());
                break;
            case "Resume":
                OnTask(call, ResumeRequest.Parser.ParseFrom(payload).Id, t => t.Resume());
                break;
            case "Checkpoint":
                ContainerTask task = _tasks.Find(CheckpointTaskRequest.Parser.ParseFrom(payload).Id);
                throw TaskErrors.WrongState($"container {task.Id} cannot be checkpointed: containers in VMs have no checkpoints yet");
            case "Kill":
                KillRequest kill = KillRequest.Parser.ParseFrom(payload);
                OnTask(call, kill.Id, t => t.Kill(t.Find(kill.ExecId), (int)kill.Signal, kill.All));
                break;
            case "Exec":
                ExecProcessRequest exec = ExecProcessRequest.Parser.ParseFrom(payload);
                StdioUris uris = new(exec.Stdin, exec.Stdout, exec.Stderr, exec.Terminal);
                OnTask(call, exec.Id, t => t.AddExec(exec.ExecId, uris, exec.Spec));
                break;
            case "ResizePty":
                ResizePtyRequest size = ResizePtyRequest.Parser.ParseFrom(payload);
                OnTask(call, size.Id, t => ContainerTask.Resize(t.Find(size.ExecId), size.Width, size.Height));
                break;
            case "CloseIO":
                CloseIORequest close = CloseIORequest.Parser.ParseFrom(payload);
                TaskProcess closing = _tasks.Find(close.Id).Find(close.ExecId);
                if (close.Stdin)
                {
                    closing.Process?.CloseInput();
                }

                call.Complete(new Empty());
                break;
            case "Update":
                UpdateTaskRequest update = UpdateTaskRequest.Parser.ParseFrom(payload);
                OnTask(call, update.Id, t => t.Update(update.Resources));
                break;
            case "Wait":
                WaitRequest wait = WaitRequest.Parser.ParseFrom(payload);
                TaskProcess process = _tasks.Find(wait.Id).Find(wait.ExecId);
                process.WhenEnded(() => _loop.Post(() => call.Complete(new WaitResponse { ExitStatus = process.ExitStatus, ExitedAt = process.ExitedAt })));
                break;
            case "Stats":
                ContainerTask measured = _tasks.Find(StatsRequest.Parser.ParseFrom(payload).Id);
                Run(call, () => new StatsResponse { Stats = Metrics.Of(measured.Statistics(), _unified) });
                break;
            case "Connect":
                call.Complete(new ConnectResponse
                {
                    ShimPid = (uint)Environment.ProcessId,
                    TaskPid = _tasks.Find(ConnectRequest.Parser.ParseFrom(payload).Id).Pid,
                    Version = VersionCommand.Number,
                });
                break;
            case "Shutdown":
                call.Complete(new Empty());
                if (_tasks.IsEmpty)
                {
                    _shutDown();
                }

                break;
            default:
                return false;
        }

        return true;
    }

    private static StateResponse State(ContainerTask task, string execId)
    {
        TaskProcess process = task.Find(execId);
        return new StateResponse
        {
            Id = execId.Length == 0 ? task.Id : execId,
            ExecId = execId,
            Bundle = task.Bundle,
            Pid = process.Status == Status.Created && execId.Length > 0 ? 0 : task.Pid,
            Status = process.Status,
            Stdin = process.Uris.Input,
            Stdout = process.Uris.Output,
            Stderr = process.Uris.Error,
            Terminal = process.Uris.Terminal,
            ExitStatus = process.ExitStatus,
            ExitedAt = process.ExitedAt,
        };
    }

    private void Start(TtrpcCall call, StartRequest request)
    {
        ContainerTask task = _tasks.Find(request.Id);
        Run(call, () =>
        {
            if (request.ExecId.Length == 0)
            {
                task.Start();
            }
            else
            {
                task.StartExec(task.Find(request.ExecId));
            }

            return new StartResponse { Pid = task.Pid };
        });
    }

    private void Delete(TtrpcCall call, DeleteRequest request)
    {
        ContainerTask task = _tasks.Find(request.Id);
        TaskProcess process = task.Find(request.ExecId);
        Run(call, () =>
        {
            if (request.ExecId.Length == 0)
            {
                _tasks.Delete(task);
            }
            else
            {
                task.DeleteExec(process);
            }

            return new DeleteResponse { Pid = task.Pid, ExitStatus = process.ExitStatus, ExitedAt = process.ExitedAt };
        });
    }

    private void OnTask(TtrpcCall call, string id, Action<ContainerTask> action)
    {
        ContainerTask task = _tasks.Find(id);
        Run(call, () =>
        {
            action(task);
            return new Empty();
        });
    }

    private void Run(TtrpcCall call, Func<IMessage> work) => new Thread(
        () =>
        {
            try
            {
                IMessage answer = work();
                _loop.Post(() => call.Complete(answer));
            }
            catch (Exception e) when (e is not OutOfMemoryException)
            {
                (StatusCode code, string message) = TaskErrors.Of(e);
                _loop.Post(() => call.Fail(code, message));
            }
        },
        512 << 10)
    { IsBackground = true, Name = call.Request.Method }.Start();

    private sealed class Named(string name, TaskService service) : ITtrpcService
    {
        public string ServiceName => name;

        public bool Invoke(TtrpcCall call) => service.Invoke(call);
    }
}
