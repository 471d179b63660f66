using Google.Protobuf.WellKnownTypes;
using MicroVm.Oci;
using MicroVm.Sandbox;
using MicroVm.Shim.Api;
using MicroVm.Shim.Bootstrap;
using MicroVm.Shim.Containers;
using MicroVm.Shim.Events;
using MicroVm.Shim.Mounts;
using MicroVm.Shim.Streams;
using MicroVm.Ttrpc;

namespace MicroVm.Shim.Tasks;

/// <summary>The tasks of this shim, by container's id. Any thread.</summary>
internal sealed class TaskTable
{
    private const string Rootfs = "rootfs";
    private readonly TaskHost _host;
    private readonly IEventSink _events;
    private readonly Func<ContainerRequest, ITaskContainer> _create;
    private readonly Lock _lock = new();

    // Null: it is being created.
    private readonly Dictionary<string, ContainerTask?> _tasks = [];

    /// <summary>An empty table.</summary>
    /// <param name="host">What tasks share.</param>
    /// <param name="events">Takes events.</param>
    /// <param name="create">Makes a container; by default in the shim's VM.</param>
    internal TaskTable(TaskHost host, IEventSink events, Func<ContainerRequest, ITaskContainer>? create = null) =>
        (_host, _events, _create) = (host, events, create ?? new VmContainerFactory().Create);

    /// <summary>Whether there is none, nor one to come.</summary>
    internal bool IsEmpty
    {
        get
        {
            lock (_lock)
            {
                return _tasks.Count == 0;
            }
        }
    }

    /// <summary>A task.</summary>
    /// <exception cref="TtrpcException">NotFound.</exception>
    internal ContainerTask Find(string id)
    {
        lock (_lock)
        {
            return _tasks.GetValueOrDefault(id) ?? throw TaskErrors.NoTask(id);
        }
    }

    /// <summary>Creates a task.</summary>
    /// <exception cref="TtrpcException">The id is taken, or what is asked for is not supported.</exception>
    /// <exception cref="SandboxException">It cannot be created.</exception>
    /// <exception cref="SpecException">Its configuration is malformed.</exception>
    internal ContainerTask Create(CreateTaskRequest request)
    {
        ContainerId.Check(request.Id);
        lock (_lock)
        {
            if (!_tasks.TryAdd(request.Id, null))
            {
                throw TaskErrors.Exists("container", request.Id);
            }
        }

        ContainerTask? task = null;
        try
        {
            return task = Make(request);
        }
        finally
        {
            lock (_lock)
            {
                if (task is null)
                {
                    _ = _tasks.Remove(request.Id);
                }
            }
        }
    }

    /// <summary>Removes a task that has ended.</summary>
    internal void Delete(ContainerTask task)
    {
        task.Delete();
        lock (_lock)
        {
            _ = _tasks.Remove(task.Id);
        }
    }

    private ContainerTask Make(CreateTaskRequest request)
    {
        if (request.Checkpoint.Length > 0)
        {
            throw TaskErrors.WrongState($"container {request.Id} cannot be restored from {request.Checkpoint}: containers in VMs have no checkpoints yet");
        }

        StdioUris uris = new(request.Stdin, request.Stdout, request.Stderr, request.Terminal);
        ContainerRequest wanted = new()
        {
            Id = request.Id,
            Bundle = request.Bundle,
            Stdio = uris,
            Namespace = _host.Namespace,
            Vm = TaskOptions.Read(request.Options),
            Runtime = ShimFolders.Options(_host.Namespace, _host.Debug),
            Main = _host.Main,
            Log = _host.Log,
        };
        RootfsMounts mounts = RootfsMounts.Make([.. request.Rootfs], Path.Combine(request.Bundle, Rootfs));
        ITaskContainer container;
        try
        {
            container = _create(wanted);
        }
        catch
        {
            mounts.Dispose();
            throw;
        }

        ContainerTask task = new(request.Id, request.Bundle, uris, container, mounts, _events);
        lock (_lock)
        {
            _tasks[request.Id] = task;
        }

        TaskCreate created = new()
        {
            ContainerId = request.Id,
            Bundle = request.Bundle,
            Io = new TaskIO { Stdin = request.Stdin, Stdout = request.Stdout, Stderr = request.Stderr, Terminal = request.Terminal },
            Pid = task.Pid,
        };
        created.Rootfs.AddRange(request.Rootfs);
        _events.Publish(Topics.Create, created);
        task.Follow();
        return task;
    }
}
