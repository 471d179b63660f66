using MicroVm.Agent.Containers;
using MicroVm.Agent.Rootfs;
using MicroVm.Agent.Stdio;
using MicroVm.Linux;
using MicroVm.Linux.Tracing;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Agent.Service;

/// <summary>Creates containers: cgroup and child on a thread of their own, after the request was checked on the loop's thread.</summary>
/// <param name="agent">The agent's state.</param>
/// <param name="ends">Is given the end of an init that ended before it was created.</param>
/// <param name="oom">Watches the container's cgroup.</param>
internal sealed class ContainerCreation(AgentState agent, ProcessEnds ends, OomEvents oom)
{
    internal void Create(CreateContainerRequest request, TtrpcCall call)
    {
        string id = request.ContainerId;
        if (id.Length == 0 || request.Spec?.Process is null || request.Spec.Root is null)
        {
            throw new TtrpcException(StatusCode.InvalidArgument, "a container needs an id, a root and a process");
        }

        if (agent.Containers.Contains(id))
        {
            throw new TtrpcException(StatusCode.AlreadyExists, $"container with given ID already exists: {id}");
        }

        Container container = new(id, request.Spec);
        List<(int Flag, SafeFd PidFd)> joins = [];
        try
        {
            FindJoins(container, joins);
            using (agent.Setup.Trace.Begin("mount the host's files"))
            {
                agent.Setup.FileSystems.Need(request.Spec.Root.FsTag, request.Spec.Root.FsPath);
            }

            foreach (Mount mount in request.Spec.Mounts)
            {
                NeedSource(id, mount);
                container.Sources.Add(mount);
            }

            if (container.Has(Namespace.Types.Kind.User) && request.Spec.Mounts.Any(m => m.Type == "sysfs"))
            {
                // In a mount namespace of a user namespace sysfs can be mounted where it is to be seen already.
                Boot.GuestMounts.NeedSysfs();
            }

            foreach (Hook hook in request.Spec.CreateContainerHooks)
            {
                agent.Setup.FileSystems.Need(hook.FsTag, hook.FsPath);
            }

            container.Init = new ContainerProcess(
                container, "", request.Spec.Process, new ProcessStdio(agent.Streams, request.Stdio, request.Spec.Process.Terminal));
            MakeCgroup(container);
        }
        catch (SetupException e)
        {
            joins.ForEach(j => j.PidFd.Dispose());
            Discard(container);
            throw new TtrpcException(StatusCode.Internal, e.Message, e);
        }
        catch (TtrpcException)
        {
            joins.ForEach(j => j.PidFd.Dispose());
            Discard(container);
            throw;
        }

        agent.Containers.Add(container);
        ContainerSetup setup = new(agent.Setup, container.Init, joins);
        Background.Run("create", () =>
        {
            Exception? failure = Background.Attempt(setup.Run);
            joins.ForEach(j => j.PidFd.Dispose());
            agent.Loop.Post(() => Finish(container, failure, setup.MissingDevices, call));
        });
    }

    private void NeedSource(string id, Mount mount)
    {
        switch (mount.Kind)
        {
            case Mount.Types.Kind.Export when mount.Grows:
                agent.Setup.FileSystems.NeedGrowing(mount.FsTag, mount.Source);
                break;
            case Mount.Types.Kind.Export:
                agent.Setup.FileSystems.Need(mount.FsTag, mount.Source);
                break;
            case Mount.Types.Kind.Shared:
                agent.Setup.FileSystems.NeedShared(mount.Source, mount.Data);
                break;
            case Mount.Types.Kind.Socket when mount.Socket?.Readiness == true:
                agent.Readiness.Need(id, mount.Socket);
                break;
            case Mount.Types.Kind.Socket:
                agent.Sockets.Need(mount.Socket ?? throw new SetupException($"the mount at \"{mount.Destination}\" names no socket"));
                break;
            default:
                break;
        }
    }

    private void FindJoins(Container container, List<(int Flag, SafeFd PidFd)> joins)
    {
        foreach (Namespace ns in container.Spec.Namespaces)
        {
            if (ns.JoinContainerId.Length == 0)
            {
                continue;
            }

            Container other = agent.Containers.Find(ns.JoinContainerId);
            if (!other.IsAlive)
            {
                throw Refusal.WrongState($"container \"{other.Id}\", whose namespace is to be joined, is not running");
            }

            if (ns.Kind == Namespace.Types.Kind.Pid && other.Proc is not null)
            {
                NeedOwn();
                container.Proc = other.Proc.Share();
            }

            int flag = NamespaceFlags.Of(ns.Kind);
            joins.Add((flag, other.Init!.Child!.PidFd!.Duplicate()));
        }
    }

    private void NeedOwn()
    {
        try
        {
            agent.Setup.FileSystems.NeedOwn();
        }
        catch (LinuxException e)
        {
            throw new SetupException("making the procfs of a PID namespace that containers share", e);
        }
    }

    private void MakeCgroup(Container container)
    {
        if (container.Spec.Cgroup is not { Path.Length: > 0 } cgroup)
        {
            return;
        }

        using StepScope step = agent.Setup.Trace.Begin("make the cgroup");
        container.Cgroup = agent.Cgroups.Create(cgroup.Path, cgroup.Settings);
        container.Cgroup.AttachDeviceFilter(cgroup.DeviceFilter.Span);
        if (cgroup.HasOwner)
        {
            container.Cgroup.Delegate(cgroup.Owner);
        }

        oom.Watch(container);
    }

    private void Finish(Container container, Exception? failure, IEnumerable<uint> missingDevices, TtrpcCall call)
    {
        ContainerProcess init = container.Init!;
        if (failure is not null)
        {
            agent.Containers.Remove(container);
            Discard(container);
            call.Fail(StatusCode.Internal, $"unable to start container process: {failure.Message}");
            return;
        }

        init.State = ProcessState.Created;
        init.Stdio.Start(agent.Loop);
        CreateContainerResponse response = new() { Pid = init.Child!.Pid };
        response.MissingDevices.AddRange(missingDevices);
        call.Complete(response);
        if (init.EarlyStatus is { } status)
        {
            ends.OnExited(init, status);
        }
    }

    // What is left of a container that could not be made: its child is dead or dies with its pipes.
    private void Discard(Container container)
    {
        agent.DropSources(container);
        string? path = container.Cgroup?.Path;
        if (path is not null)
        {
            Background.TryOrWarn(container.Cgroup!.Kill);
        }

        container.Dispose();
        if (path is not null)
        {
            Background.Run("discard", () => _ = Background.Attempt(() => CgroupRemoval.Remove(path)));
        }
    }
}
