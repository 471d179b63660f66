using MicroVm.Agent.Cgroups;
using MicroVm.Agent.Containers;
using MicroVm.Agent.Rootfs;
using MicroVm.Agent.Stdio;
using MicroVm.Linux;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Agent.Service;

/// <summary>The agent's service. Everything happens on the loop's thread but for setting up and tearing down containers.</summary>
public sealed partial class AgentService : AgentServiceBase
{
    private readonly Dictionary<string, Container> _containers = [];
    private readonly EventLoop _loop;
    private readonly SetupContext _context;
    private readonly CgroupTree _cgroups;
    private readonly StreamTable _streams;
    private readonly OomWatch _oom;
    private readonly GuestSockets _sockets;
    private readonly ReadinessSockets _readiness;
    private readonly Action _powerOff;
    private Task _mountChanges = Task.CompletedTask;

    /// <summary>Creates the service.</summary>
    /// <param name="loop">The agent's loop.</param>
    /// <param name="context">What setting up containers needs.</param>
    /// <param name="cgroups">The cgroup hierarchy.</param>
    /// <param name="streams">The host's stdio connections.</param>
    /// <param name="oom">Tells of OOM kills.</param>
    /// <param name="powerOff">Ends the machine; called by Shutdown when containers are dead.</param>
    public AgentService(EventLoop loop, SetupContext context, CgroupTree cgroups, StreamTable streams, OomWatch oom, Action powerOff)
    {
        _loop = loop;
        _context = context;
        _cgroups = cgroups;
        _streams = streams;
        _powerOff = powerOff;
        _oom = oom;
        _sockets = new GuestSockets(loop, context.FileSystems);
        _readiness = new ReadinessSockets(loop, context.FileSystems);
    }

    /// <summary>Records the end of a child; ids that are none of the agent's children are ignored.</summary>
    public void OnChildExited(int pid, int status)
    {
        if (_context.Processes.EndHelper(pid, status))
        {
            return;
        }

        ContainerProcess? process = _context.Processes.Remove(pid);
        if (process is null || process.State == ProcessState.Creating)
        {
            // Setup fails by itself when its child dies.
            if (process is not null)
            {
                process.EarlyStatus = status;
            }

            return;
        }

        OnExited(process, status);
    }

    private void OnExited(ContainerProcess process, int status)
    {
        Container container = process.Container;
        bool oomKilled = false;
        if (container.Cgroup is not null)
        {
            NoteOomKills(container);
            oomKilled = container.OomKills > 0 && ((status & 0x7f) == Linux.Native.Libc.SIGKILL || process.ExecId.Length == 0);
        }

        AbortStart(process);
        process.SetExited(status, oomKilled);
        if (process.ExecId.Length > 0)
        {
            container.Retire(process);
        }

        if (process.ExecId.Length == 0 && container.Cgroup is not null && !container.HasOwn(Namespace.Types.Kind.Pid))
        {
            // Without a PID namespace of its own nothing else ends what the init leaves behind.
            TryDo(container.Cgroup.Kill);
        }
    }

    private Container Find(string id)
    {
        if (!_containers.TryGetValue(id, out Container? container))
        {
            throw new TtrpcException(StatusCode.NotFound, $"container \"{id}\" does not exist");
        }

        return container;
    }

    private ContainerProcess FindProcess(string containerId, string execId)
    {
        Container container = Find(containerId);
        ContainerProcess? process = execId.Length == 0 ? container.Init : container.Execs.GetValueOrDefault(execId);
        return process ?? throw new TtrpcException(StatusCode.NotFound, $"process \"{execId}\" of container \"{containerId}\" does not exist");
    }

    private static TtrpcException WrongState(string message) => new(StatusCode.FailedPrecondition, message);

    private static void TryDo(Action action)
    {
        try
        {
            action();
        }
        catch (LinuxException e)
        {
            Boot.Log.Warn(e.Message);
        }
    }

    // Setup threads join a container's namespaces, so each is used once. They run managed code only, on a small stack.
    private static void RunThread(string name, Action body) =>
        new Thread(() => body(), 256 << 10) { IsBackground = true, Name = name }.Start();
}
