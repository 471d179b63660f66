using MicroVm.Agent.Containers;
using MicroVm.Agent.Rootfs;
using MicroVm.Agent.Stdio;
using MicroVm.Linux;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Agent.Service;

public sealed partial class AgentService
{
    /// <inheritdoc/>
    protected override void CreateContainer(CreateContainerRequest request, TtrpcCall call)
    {
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(call);
        string id = request.ContainerId;
        if (id.Length == 0 || request.Spec?.Process is null || request.Spec.Root is null)
        {
            throw new TtrpcException(StatusCode.InvalidArgument, "a container needs an id, a root and a process");
        }

        if (_containers.ContainsKey(id))
        {
            throw new TtrpcException(StatusCode.AlreadyExists, $"container with given ID already exists: {id}");
        }

        Container container = new(id, request.Spec);
        List<(int Flag, SafeFd PidFd)> joins = [];
        try
        {
            FindJoins(request.Spec, joins);
            _context.FileSystems.Need(request.Spec.Root.FsTag, request.Spec.Root.FsPath);
            foreach (Mount mount in request.Spec.Mounts)
            {
                NeedSource(mount);
            }

            if (container.Has(Namespace.Types.Kind.User) && request.Spec.Mounts.Any(m => m.Type == "sysfs"))
            {
                // In a mount namespace of a user namespace sysfs can be mounted where it is to be seen already.
                Boot.GuestMounts.NeedSysfs();
            }

            foreach (Hook hook in request.Spec.CreateContainerHooks)
            {
                _context.FileSystems.Need(hook.FsTag, hook.FsPath);
            }

            container.Init = new ContainerProcess(
                container, "", request.Spec.Process, new ProcessStdio(_streams, request.Stdio, request.Spec.Process.Terminal));
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

        _containers.Add(id, container);
        ContainerSetup setup = new(_context, container.Init, joins);
        RunThread("create", () =>
        {
            Exception? failure = Attempt(setup.Run);
            joins.ForEach(j => j.PidFd.Dispose());
            _loop.Post(() => FinishCreate(container, failure, setup.MissingDevices, call));
        });
    }

    private void NeedSource(Mount mount)
    {
        switch (mount.Kind)
        {
            case Mount.Types.Kind.Export when mount.Grows:
                _context.FileSystems.NeedGrowing(mount.FsTag, mount.Source);
                break;
            case Mount.Types.Kind.Export:
                _context.FileSystems.Need(mount.FsTag, mount.Source);
                break;
            case Mount.Types.Kind.Shared:
                _context.FileSystems.NeedShared(mount.Source, mount.Data);
                break;
            case Mount.Types.Kind.Socket when mount.Socket?.Readiness == true:
                _readiness.Need(mount.Socket);
                break;
            case Mount.Types.Kind.Socket:
                _sockets.Need(mount.Socket ?? throw new SetupException($"the mount at \"{mount.Destination}\" names no socket"));
                break;
            default:
                break;
        }
    }

    private static Exception? Attempt(Action action)
    {
        try
        {
            action();
            return null;
        }
        catch (Exception e) when (e is not OutOfMemoryException)
        {
            return e;
        }
    }

    private void FindJoins(ContainerSpec spec, List<(int Flag, SafeFd PidFd)> joins)
    {
        foreach (Namespace ns in spec.Namespaces)
        {
            if (ns.JoinContainerId.Length == 0)
            {
                continue;
            }

            Container other = Find(ns.JoinContainerId);
            if (!other.IsAlive)
            {
                throw WrongState($"container \"{other.Id}\", whose namespace is to be joined, is not running");
            }

            int flag = NamespaceFlags.Of(ns.Kind);
            joins.Add((flag, other.Init!.Child!.PidFd!.Duplicate()));
        }
    }

    private void MakeCgroup(Container container)
    {
        if (container.Spec.Cgroup is not { Path.Length: > 0 } cgroup)
        {
            return;
        }

        container.Cgroup = _cgroups.Create(cgroup.Path, cgroup.Settings);
        container.Cgroup.AttachDeviceFilter(cgroup.DeviceFilter.Span);
        if (cgroup.HasOwner)
        {
            container.Cgroup.Delegate(cgroup.Owner);
        }

        _oom.Add(container.Cgroup, () => NoteOomKills(container));
    }

    private void FinishCreate(Container container, Exception? failure, IEnumerable<uint> missingDevices, TtrpcCall call)
    {
        ContainerProcess init = container.Init!;
        if (failure is not null)
        {
            _containers.Remove(container.Id);
            Discard(container);
            call.Fail(StatusCode.Internal, $"unable to start container process: {failure.Message}");
            return;
        }

        init.State = ProcessState.Created;
        init.Stdio.Start(_loop);
        CreateContainerResponse response = new() { Pid = init.Child!.Pid };
        response.MissingDevices.AddRange(missingDevices);
        call.Complete(response);
        if (init.EarlyStatus is { } status)
        {
            OnExited(init, status);
        }
    }

    // What is left of a container that could not be made: its child is dead or dies with its pipes.
    private static void Discard(Container container)
    {
        string? path = container.Cgroup?.Path;
        if (path is not null)
        {
            TryDo(container.Cgroup!.Kill);
        }

        container.Dispose();
        if (path is not null)
        {
            RunThread("discard", () => _ = Attempt(() => RemoveCgroup(path)));
        }
    }
}
