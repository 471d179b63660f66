using System.Globalization;
using System.Text;
using MicroVm.Agent.Cgroups;
using MicroVm.Agent.Child;
using MicroVm.Agent.Rootfs;
using MicroVm.Linux;
using MicroVm.Linux.Child;
using MicroVm.Linux.Native;
using MicroVm.Linux.Tracing;
using MicroVm.Protocol.Agent;

namespace MicroVm.Agent.Containers;

/// <summary>
/// Makes a container, on a thread of its own, up to the point where its init waits to exec. The init is cloned first, into
/// its new namespaces, and waits; the thread joins those and builds the mount tree with the agent's rights and the agent's
/// root still in sight; pivot_root moves both. What the thread joined dies with it.
/// </summary>
public sealed unsafe class ContainerSetup
{
    // Far more than engines mount of their own; each is a request to the host.
    private const int MostLooks = 32;
    private readonly SetupContext _context;
    private readonly ContainerProcess _process;
    private readonly ContainerSpec _spec;
    private readonly IReadOnlyList<(int Flag, SafeFd PidFd)> _joins;
    private int _newFlags;
    private string? _joinedProc;

    /// <summary>Prepares to set up <paramref name="process"/>, the init of its container.</summary>
    /// <param name="context">The agent.</param>
    /// <param name="process">The init.</param>
    /// <param name="joins">Namespaces of other containers to join: kind as CLONE_NEW* flag, and a pidfd of that container's init, open until the work is done.</param>
    public ContainerSetup(SetupContext context, ContainerProcess process, IReadOnlyList<(int Flag, SafeFd PidFd)> joins)
    {
        ArgumentNullException.ThrowIfNull(process);
        _context = context;
        _process = process;
        _spec = process.Container.Spec;
        _joins = joins;
    }

    /// <summary>Indexes of the plan's devices that the guest's kernel has no driver for.</summary>
    public IReadOnlyList<uint> MissingDevices { get; private set; } = [];

    /// <summary>Does the work; the calling thread must end afterwards, since it stays in the container's namespaces.</summary>
    /// <exception cref="SetupException">A step failed; the child, if there was one, is dead.</exception>
    public void Run()
    {
        using StepScope whole = _context.Trace.Begin("set up the container");
        try
        {
            long began = StepRecorder.Now;
            JoinAndUnshare();
            ClonedChild child = new(moreSteps: _spec.Mounts.Count);
            _process.Child = child;
            ChildStep* exec = AddSteps(child, out int[] contexts);
            int cloneFlags = _newFlags & ~(Libc.CLONE_NEWCGROUP | Libc.CLONE_NEWTIME);
            ContainerCgroup? cgroup = _process.Container.Cgroup;
            bool shareMemory = (_newFlags & Libc.CLONE_NEWTIME) == 0;
            began = Note("make the program of the child", began);
            try
            {
                _context.Processes.Spawn(
                    _process,
                    () => child.Spawn((uint)cloneFlags, cgroup, shareMemory),
                    () =>
                    {
                        began = Note("clone the child into its namespaces", began);
                        Prepare(child, contexts, exec);
                    });
                began = StepRecorder.Now;
                if (child.Forks)
                {
                    // Afterwards, since the limit of processes bounds the clone, too.
                    ProcessSteps.ApplyLimits(child.Pid, _process.Spec);
                    ProcessSteps.ApplyScheduler(child.Pid, _process.Spec);
                }

                child.Expect(StepId.Created);
                _process.Stdio.CloseChildEnds();
                _ = Note("await the child's identity and limits", began);
            }
            catch
            {
                child.Signal(Libc.SIGKILL);
                throw;
            }
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

    /// <summary>Records a step that ends now, and where the next one begins.</summary>
    private long Note(string step, long began)
    {
        long now = StepRecorder.Now;
        _context.Trace.Add(step, began, now);
        return now;
    }

    // From within a new user namespace no PID namespace of another one can be joined.
    private int JoinedByChild => (_newFlags & Libc.CLONE_NEWUSER) != 0 ? NamespaceFlags.JoinedByChild & ~Libc.CLONE_NEWPID : NamespaceFlags.JoinedByChild;

    private void JoinAndUnshare()
    {
        _newFlags = NamespaceFlags.Of(_spec.Namespaces.Where(ns => ns.JoinContainerId.Length == 0));
        if ((_newFlags & Libc.CLONE_NEWNS) == 0)
        {
            throw new SetupException("a container needs a mount namespace of its own");
        }

        Check.Result(Libc.unshare(Libc.CLONE_FS), "unshare(CLONE_FS)");
        foreach ((int flag, SafeFd pidfd) in _joins)
        {
            if ((flag & JoinedByChild) == 0)
            {
                Check.Result(Libc.setns(pidfd.Value, flag), $"setns(0x{flag:x})");
            }
        }

        if ((_newFlags & Libc.CLONE_NEWTIME) != 0)
        {
            UnshareTime();
        }

        if (JoinsPid)
        {
            _joinedProc = _process.Container.Proc?.MountedAt(_context.Paths.Own);
        }
    }

    private bool JoinsPid => _joins.Any(j => (j.Flag & JoinedByChild & Libc.CLONE_NEWPID) != 0);

    private void UnshareTime()
    {
        Check.Result(Libc.unshare(Libc.CLONE_NEWTIME), "unshare(CLONE_NEWTIME)");
        if (_spec.TimeOffsets.Count > 0)
        {
            StringBuilder text = new();
            foreach (TimeOffset offset in _spec.TimeOffsets)
            {
                text.Append(CultureInfo.InvariantCulture, $"{offset.Clock} {offset.Seconds} {offset.Nanoseconds}\n");
            }

            // By the thread's own id: the namespace for its children is the thread's, not the process's.
            int tid = Libc.gettid();
            SmallFile.Write(_context.Proc, string.Create(CultureInfo.InvariantCulture, $"{tid}/timens_offsets"), text.ToString());
        }
    }

    private bool OwnsPid => (_newFlags & Libc.CLONE_NEWPID) != 0;

    private ChildStep* AddSteps(ClonedChild child, out int[] contexts)
    {
        ChildProgram program = child.Program;
        foreach ((int flag, SafeFd pidfd) in _joins)
        {
            ProcessSteps.AddJoin(child, pidfd, flag & JoinedByChild);
        }

        if ((_newFlags & Libc.CLONE_NEWCGROUP) != 0)
        {
            // In the child, because the namespace's root is the cgroup of the process that makes it.
            program.Add(StepId.CgroupNamespace, StepMode.Report, Libc.SYS_unshare, Libc.CLONE_NEWCGROUP);
        }

        // Each takes the lowest number that is free; the last is for who joins the namespace.
        int procs = _joinedProc is not null ? 0 : _spec.Mounts.Count(RootfsBuilder.IsProc) + (OwnsPid ? 1 : 0);
        contexts = [.. Enumerable.Range(child.FirstFree, procs)];
        nint proc = program.String("proc");
        for (int i = 0; i < contexts.Length; i++)
        {
            program.Add(StepId.ProcMount, StepMode.Report, Libc.SYS_fsopen, proc, Libc.FSOPEN_CLOEXEC);
        }

        child.AddReport(StepId.Ready);
        if (_process.Spec.Terminal)
        {
            child.AddReceive(child.FirstFree + contexts.Length);
        }
        else
        {
            child.SetStdio(_process.Stdio.ChildEnd(0), _process.Stdio.ChildEnd(1), _process.Stdio.ChildEnd(2));
            child.AddWait();
        }

        if (JoinsPid)
        {
            // Other processes of the namespace, which may be hostile and may trace, never see it with the agent's rights.
            ProcessSteps.AddResources(program, _process.Spec, withScheduler: false);
            ProcessSteps.AddIdentity(program, _process.Spec);
            child.AddFork();
            ProcessSteps.AddSession(program, _process.Spec);
        }
        else
        {
            ProcessSteps.AddSession(program, _process.Spec);
            ProcessSteps.AddResources(program, _process.Spec);
            ProcessSteps.AddIdentity(program, _process.Spec);
        }

        child.AddReport(StepId.Created);
        child.AddWait();
        AddLooks(program);
        return ProcessSteps.AddExec(program, _process.Spec);
    }

    // Engines write files that they mount, such as /etc/hosts, until the start, and what the guest saw of one at its mount holds for a second.
    private void AddLooks(ChildProgram program)
    {
        nint answer = program.Address(program.Allocate((nuint)sizeof(Libc.statx_t)));
        foreach (Mount mount in _spec.Mounts.Where(m => m is { Kind: Mount.Types.Kind.Export, SourceIsFile: true }).Take(MostLooks))
        {
            program.Add(
                StepId.FileSize, StepMode.Ignore, Libc.SYS_statx, Libc.AT_FDCWD, program.String(mount.Destination), Libc.AT_STATX_FORCE_SYNC, (nint)Libc.STATX_SIZE, answer);
        }
    }

    private void Prepare(ClonedChild child, int[] contexts, ChildStep* exec)
    {
        long began = StepRecorder.Now;
        if ((_newFlags & Libc.CLONE_NEWUSER) != 0)
        {
            WriteMaps(child);
        }

        child.Expect(StepId.Ready);
        began = Note("await the child", began);
        List<SafeFd> procs = [.. contexts.Select(child.Take)];
        if (OwnsPid)
        {
            _process.Container.Proc = new NamespaceProc(procs[^1]);
            procs.RemoveAt(procs.Count - 1);
        }

        WriteOomScore(child);
        int joinable = _newFlags & (Libc.CLONE_NEWNS | Libc.CLONE_NEWUTS | Libc.CLONE_NEWIPC | Libc.CLONE_NEWNET);
        joinable |= _process.Container.Has(Namespace.Types.Kind.Cgroup) ? Libc.CLONE_NEWCGROUP : 0;
        Check.Result(Libc.setns(child.PidFd!.Value, joinable), "setns to the container's namespaces");
        if ((_newFlags & Libc.CLONE_NEWNET) != 0)
        {
            Loopback.Up();
        }
        else if (!_process.Container.Has(Namespace.Types.Kind.Network))
        {
            Loopback.UpOnce();
        }

        SetNames();
        OwnFiles();
        began = Note("join the namespaces", began);
        using RootfsBuilder rootfs = new(_context.Paths, _context.FileSystems, _spec, _context.Trace);
        try
        {
            rootfs.Build(procs, _joinedProc);
            MissingDevices = rootfs.MissingDevices;
        }
        finally
        {
            procs.ForEach(p => p.Dispose());
        }

        began = Note("build the root", began);
        uint owner = NamespaceFlags.Map(_spec.UidMappings, _process.Spec.User?.Uid ?? 0);
        if (_process.Spec.Terminal)
        {
            _process.Stdio.OpenTerminal(rootfs.Root, _process.Spec, owner);
            rootfs.MountConsole(_process.Stdio.Slave!);
        }
        else
        {
            _process.Stdio.ChangeOwner(owner);
        }

        WriteSysctls();
        if (!child.Forks)
        {
            ProcessSteps.ApplyLimits(child.Pid, _process.Spec);
        }

        if (_process.Spec.Cwd is not ("" or "/"))
        {
            rootfs.Root.MakeDirectory(_process.Spec.Cwd).Dispose();
        }

        new ContainerHooks(_context, _process.Container, child.PidFd).RunCreateContainer(rootfs.Root);
        began = Note("streams, sysctls, limits, hooks", began);
        rootfs.Seal();
        began = Note("seal the root", began);
        _process.Executable = ExecutableLookup.Find(rootfs.Root, _process.Spec);
        exec->Arguments[0] = child.Program.String(_process.Executable);
        began = Note("find the executable", began);
        rootfs.Pivot();
        _ = Note("pivot to the root", began);
        if (_process.Stdio.Slave is { } slave)
        {
            child.Go(slave);
        }
        else
        {
            child.Go();
        }
    }

    // What the thread makes from here on (directories, nodes, roots of file systems) is owned by the container's root. That it
    // is not the guest's takes capabilities away, which come back.
    private void OwnFiles()
    {
        uint uid = NamespaceFlags.Map(_spec.UidMappings, 0), gid = NamespaceFlags.Map(_spec.GidMappings, 0);
        if (uid == 0 && gid == 0)
        {
            return;
        }

        Libc.__user_cap_header_struct header = new() { version = Libc._LINUX_CAPABILITY_VERSION_3 };
        Libc.__user_cap_data_struct* caps = stackalloc Libc.__user_cap_data_struct[2];
        Check.Result(Libc.capget(&header, caps), "capget");
        _ = Libc.setfsgid(gid);
        _ = Libc.setfsuid(uid);
        Check.Result(Libc.capset(&header, caps), "capset");
    }

    private void WriteOomScore(ClonedChild child)
    {
        if (_process.Spec.HasOomScoreAdj)
        {
            string pid = child.Pid.ToString(CultureInfo.InvariantCulture);
            SmallFile.Write(_context.Proc, $"{pid}/oom_score_adj", _process.Spec.OomScoreAdj.ToString(CultureInfo.InvariantCulture));
        }
    }

    private void WriteMaps(ClonedChild child)
    {
        string pid = child.Pid.ToString(CultureInfo.InvariantCulture);
        SmallFile.Write(_context.Proc, $"{pid}/uid_map", MapText(_spec.UidMappings));
        SmallFile.Write(_context.Proc, $"{pid}/gid_map", MapText(_spec.GidMappings));
        child.Go();
    }

    private static string MapText(IEnumerable<IdMapping> mappings) => string.Join(
        '\n', mappings.Select(m => string.Create(CultureInfo.InvariantCulture, $"{m.ContainerId} {m.HostId} {m.Size}")));

    private void SetNames()
    {
        if (_spec.Hostname.Length == 0 && _spec.Domainname.Length == 0)
        {
            return;
        }

        if (!_process.Container.Has(Namespace.Types.Kind.Uts))
        {
            throw new SetupException("unable to set hostname without a private UTS namespace");
        }

        if (_spec.Hostname.Length > 0)
        {
            byte[] name = Encoding.UTF8.GetBytes(_spec.Hostname);
            fixed (byte* p = name)
            {
                Check.Result(Libc.sethostname(p, (nuint)name.Length), "sethostname", _spec.Hostname);
            }
        }

        if (_spec.Domainname.Length > 0)
        {
            byte[] name = Encoding.UTF8.GetBytes(_spec.Domainname);
            fixed (byte* p = name)
            {
                Check.Result(Libc.setdomainname(p, (nuint)name.Length), "setdomainname", _spec.Domainname);
            }
        }
    }

    // Through the agent's procfs: what a namespaced setting belongs to is decided by who writes, not by which mount.
    private void WriteSysctls()
    {
        foreach (Sysctl sysctl in _spec.Sysctls)
        {
            try
            {
                if (sysctl.Path.Split('/').Contains(".."))
                {
                    throw new SetupException($"\"{sysctl.Path}\" is no sysctl");
                }

                SmallFile.Write(_context.Proc, "sys/" + sysctl.Path, sysctl.Value);
            }
            catch (LinuxException e)
            {
                throw new SetupException($"failed to write \"{sysctl.Value}\" to /proc/sys/{sysctl.Path}", e);
            }
        }
    }
}
