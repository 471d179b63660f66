using System.Globalization;
using MicroVm.Agent.Cgroups;
using MicroVm.Agent.Child;
using MicroVm.Agent.Rootfs;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;

namespace MicroVm.Agent.Containers;

/// <summary>Starts another process in a running container, on a thread of its own that joins the container's namespaces and ends.</summary>
public sealed unsafe class ExecSetup
{
    private readonly SetupContext _context;
    private readonly ContainerProcess _process;
    private readonly ContainerSpec _spec;
    private readonly SafeFd _init;
    private readonly string _cgroup;

    /// <summary>Prepares to start <paramref name="process"/>.</summary>
    /// <param name="context">The agent.</param>
    /// <param name="process">The process.</param>
    /// <param name="init">A pidfd of the container's init, which stays open until the work is done.</param>
    /// <param name="cgroup">A cgroup below the container's; empty for the container's own.</param>
    public ExecSetup(SetupContext context, ContainerProcess process, SafeFd init, string cgroup)
    {
        ArgumentNullException.ThrowIfNull(process);
        _context = context;
        _process = process;
        _init = init;
        _cgroup = cgroup;
        _spec = process.Container.Spec;
    }

    /// <summary>Does the work; returns when the process has exec'd (or was killed before).</summary>
    /// <exception cref="SetupException">A step failed; the child, if there was one, is dead.</exception>
    public void Run()
    {
        try
        {
            int flags = NamespaceFlags.Of(_spec.Namespaces);
            ClonedChild child = new();
            _process.Child = child;
            NamespaceFlags.Join(_init, flags);
            using RootDirectory root = RootDirectory.At("/");
            uint owner = NamespaceFlags.Map(_spec.UidMappings, _process.Spec.User?.Uid ?? 0);
            if (_process.Spec.Terminal)
            {
                _process.Stdio.OpenTerminal(root, _process.Spec, owner);
            }
            else
            {
                _process.Stdio.ChangeOwner(owner);
            }

            _process.Executable = ExecutableLookup.Find(root, _process.Spec);
            child.SetStdio(_process.Stdio.ChildEnd(0), _process.Stdio.ChildEnd(1), _process.Stdio.ChildEnd(2));
            ProcessSteps.AddToContainer(child, _init, flags, _process.Spec, _process.Executable);
            Spawn(child);
            Finish(child);
        }
        catch (ChildFailedException e)
        {
            throw e.ToSetup(_process.Executable, _process.Spec.Cwd);
        }
        catch (LinuxException e)
        {
            throw new SetupException(e.Operation, e);
        }
    }

    private void Spawn(ClonedChild child)
    {
        ContainerCgroup? cgroup = _process.Container.Cgroup;
        if (_cgroup.Length > 0 && cgroup is not null)
        {
            // As runc: where one is named, no other is tried.
            using ContainerCgroup below = cgroup.Below(_cgroup);
            _context.Processes.Spawn(_process, () => child.Spawn(0, below));
            return;
        }

        try
        {
            _context.Processes.Spawn(_process, () => child.Spawn(0, cgroup));
        }
        catch (LinuxException e) when (cgroup is not null && e.Errno is Errno.EBUSY or Errno.EOPNOTSUPP)
        {
            // The container shares its cgroup out among cgroups of its own (as systemd does), and then only those have
            // processes: as runc, the init's.
            using ContainerCgroup inner = cgroup!.Inner(_spec.Cgroup.Path, SmallFile.TryRead(_context.Proc, $"{_process.Container.Init!.Child!.Pid}/cgroup"));
            _context.Processes.Spawn(_process, () => child.Spawn(0, inner));
        }
    }

    private void Finish(ClonedChild child)
    {
        _process.Stdio.CloseChildEnds();
        if (ProcessSteps.AwaitsLimits(_process.Spec))
        {
            try
            {
                if (_process.Spec.HasOomScoreAdj)
                {
                    SmallFile.Write(
                        _context.Proc,
                        string.Create(CultureInfo.InvariantCulture, $"{child.Pid}/oom_score_adj"),
                        _process.Spec.OomScoreAdj.ToString(CultureInfo.InvariantCulture));
                }

                ProcessSteps.ApplyLimits(child.Pid, _process.Spec);
                ProcessSteps.ApplyScheduler(child.Pid, _process.Spec);
            }
            catch
            {
                child.Signal(Libc.SIGKILL);
                throw;
            }

            child.Go();
        }

        // The socket ends with the child's exec.
        if (_process.NoteExec(child.TakeReport()) is { } failure)
        {
            throw new SetupException(failure);
        }
    }
}
