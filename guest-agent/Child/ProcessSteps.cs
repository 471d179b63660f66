using Google.Protobuf;
using MicroVm.Linux;
using MicroVm.Linux.Child;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;

namespace MicroVm.Agent.Child;

/// <summary>The steps from a child that is in its namespaces to the exec of its process, in runc's order.</summary>
public static unsafe class ProcessSteps
{
    // CAP_LAST_CAP of Linux 5.9 and later.
    private const int LastCapability = 40;
    private const uint CloseRangeCloexec = 4;
    private const int DefaultUmask = 0b010_010;
    private const int LongestPath = 4096;

    /// <summary>Joins namespaces of another process, and becomes root in its user namespace when that is one of them.</summary>
    /// <param name="child">Receives the steps.</param>
    /// <param name="pidfd">The other process; open until the child was cloned.</param>
    /// <param name="flags">CLONE_NEW* flags; none adds nothing.</param>
    public static void AddJoin(ClonedChild child, SafeFd pidfd, int flags)
    {
        ArgumentNullException.ThrowIfNull(child);
        if (flags != 0)
        {
            child.Program.Add(StepId.JoinNamespace, StepMode.Report, Libc.SYS_setns, child.Keep(pidfd), flags);
        }

        if ((flags & Libc.CLONE_NEWUSER) != 0)
        {
            child.Program.Add(StepId.UserId, StepMode.Report, Libc.SYS_setresgid, 0, 0, 0);
            child.Program.Add(StepId.UserId, StepMode.Report, Libc.SYS_setresuid, 0, 0, 0);
        }
    }

    /// <summary>
    /// All of a process in a container whose other processes may be hostile. The child has its identity before they can
    /// see it, and then waits when <see cref="AwaitsLimits"/>.
    /// </summary>
    /// <param name="child">Receives the steps.</param>
    /// <param name="init">The container's init; open until the child was cloned.</param>
    /// <param name="flags">CLONE_NEW* flags of the container's namespaces; those that the cloning thread is to have joined are left out.</param>
    /// <param name="process">What to run.</param>
    /// <param name="path">The executable.</param>
    public static void AddToContainer(ClonedChild child, SafeFd init, int flags, Process process, string path)
    {
        ArgumentNullException.ThrowIfNull(child);
        ArgumentNullException.ThrowIfNull(process);
        int joined = flags & Containers.NamespaceFlags.JoinedByChild;
        AddJoin(child, init, joined);
        AddResources(child.Program, process, withScheduler: false);
        AddIdentity(child.Program, process);
        if ((joined & Libc.CLONE_NEWPID) != 0)
        {
            child.AddFork();
        }

        AddSession(child.Program, process);
        if (AwaitsLimits(process))
        {
            child.AddWait();
        }

        AddExec(child.Program, process)->Arguments[0] = child.Program.String(path);
    }

    /// <summary>Whether the child waits until <see cref="ApplyLimits"/> and the like were done, and then for <see cref="ClonedChild.Go()"/>.</summary>
    public static bool AwaitsLimits(Process process)
    {
        ArgumentNullException.ThrowIfNull(process);
        return process.Rlimits.Count > 0 || process.HasOomScoreAdj || process.Scheduler is not null;
    }

    /// <summary>Session and terminal.</summary>
    public static void AddSession(ChildProgram program, Process process)
    {
        ArgumentNullException.ThrowIfNull(program);
        ArgumentNullException.ThrowIfNull(process);
        program.Add(StepId.Session, StepMode.Report, Libc.SYS_setsid);
        if (process.Terminal)
        {
            program.Add(StepId.ControllingTerminal, StepMode.Report, Libc.SYS_ioctl, 0, (nint)Libc.TIOCSCTTY, 0);
        }

        AddSignals(program);
    }

    /// <summary>Scheduling, input and output priority, CPUs, personality: what may need rights.</summary>
    /// <param name="program">Receives the steps.</param>
    /// <param name="process">What to run.</param>
    /// <param name="withScheduler">False leaves the scheduling to <see cref="ApplyScheduler"/>.</param>
    public static void AddResources(ChildProgram program, Process process, bool withScheduler = true)
    {
        ArgumentNullException.ThrowIfNull(program);
        ArgumentNullException.ThrowIfNull(process);
        if (withScheduler && process.Scheduler is { } s)
        {
            program.Add(StepId.Scheduler, StepMode.Report, Libc.SYS_sched_setattr, 0, program.Record<ulong>(SchedulingOf(s)), 0);
        }

        if (process.HasIoPriority)
        {
            const int whoProcess = 1;
            program.Add(StepId.IoPriority, StepMode.Report, Libc.SYS_ioprio_set, whoProcess, 0, (nint)process.IoPriority);
        }

        if (process.HasPersonality)
        {
            program.Add(StepId.Personality, StepMode.Report, Libc.SYS_personality, (nint)process.Personality);
        }

        if (!process.CpuAffinity.IsEmpty)
        {
            program.Add(
                StepId.CpuAffinity,
                StepMode.Report,
                Libc.SYS_sched_setaffinity,
                0,
                process.CpuAffinity.Length,
                program.Record(process.CpuAffinity.Span));
        }
    }

    // struct sched_attr (linux/sched/types.h) of its first size.
    private static ulong[] SchedulingOf(Scheduler s) =>
    [
        48 | ((ulong)s.Policy << 32), s.Flags, (uint)s.Nice | ((ulong)s.Priority << 32), s.Runtime, s.Deadline, s.Period,
    ];

    /// <summary>
    /// Sets the scheduling of a waiting child, which may not outlive a fork (sched(7)), with the agent's rights: those of the child may not
    /// suffice.
    /// </summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public static void ApplyScheduler(int pid, Process process)
    {
        ArgumentNullException.ThrowIfNull(process);
        if (process.Scheduler is { } s)
        {
            fixed (ulong* attr = SchedulingOf(s))
            {
                Check.Result(Libc.sched_setattr(pid, attr, 0), "error setting scheduler");
            }
        }
    }

    /// <summary>Sets the resource limits of a waiting child with the agent's rights: those of the child may not suffice to raise one.</summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public static void ApplyLimits(int pid, Process process)
    {
        ArgumentNullException.ThrowIfNull(process);
        foreach (Rlimit limit in process.Rlimits)
        {
            if (InheritedLimits.Are(limit))
            {
                continue;
            }

            Libc.rlimit value = new() { rlim_cur = limit.Soft, rlim_max = limit.Hard };
            Check.Result(Libc.prlimit64(pid, (int)limit.Resource, &value, null), "error setting rlimits");
        }
    }

    /// <summary>A program of the host, given by descriptor, in the namespaces that the child is in, as their root.</summary>
    /// <param name="child">Receives the steps.</param>
    /// <param name="executable">The child's descriptor of the program (<see cref="ClonedChild.Keep"/>).</param>
    /// <param name="directory">That of the working directory.</param>
    /// <param name="args">Its arguments.</param>
    /// <param name="env">Its environment.</param>
    public static void AddProgram(ClonedChild child, int executable, int directory, IReadOnlyList<string> args, IReadOnlyList<string> env)
    {
        ArgumentNullException.ThrowIfNull(child);
        ChildProgram program = child.Program;
        AddSignals(program);
        program.Add(StepId.WorkingDirectory, StepMode.Report, Libc.SYS_fchdir, directory);
        program.Add(StepId.Umask, StepMode.Ignore, Libc.SYS_umask, DefaultUmask);
        program.Add(StepId.CloseFiles, StepMode.Report, Libc.SYS_close_range, ClonedChild.Channel, int.MaxValue, (nint)CloseRangeCloexec);
        program.Add(
            StepId.Exec,
            StepMode.Report,
            Libc.SYS_execveat,
            executable,
            program.String(""),
            program.Strings(args),
            program.Strings(env),
            Libc.AT_EMPTY_PATH);
    }

    /// <summary>
    /// Identity: user, groups, capabilities, directory, umask. The first step closes what the child was given above
    /// <see cref="ClonedChild.Channel"/>, so that no path leads to it.
    /// </summary>
    /// <param name="program">Receives the steps.</param>
    /// <param name="process">What to run.</param>
    public static void AddIdentity(ChildProgram program, Process process)
    {
        ArgumentNullException.ThrowIfNull(program);
        ArgumentNullException.ThrowIfNull(process);
        Capabilities caps = process.Capabilities ?? new Capabilities();
        User user = process.User ?? new User();
        program.Add(StepId.CloseFiles, StepMode.Report, Libc.SYS_close_range, ClonedChild.Channel + 1, int.MaxValue);

        // As runc does it: with root's rights, since the directory may be closed to the user. What comes of it must be in the
        // container: a link of the container's making may lead anywhere.
        program.Add(StepId.WorkingDirectory, StepMode.Report, Libc.SYS_chdir, program.String(process.Cwd));
        program.Add(StepId.WorkingDirectoryOutside, StepMode.Directory, Libc.SYS_getcwd, program.Address(program.Allocate(LongestPath)), LongestPath);
        if (process.NoNewPrivileges)
        {
            program.Add(StepId.NoNewPrivileges, StepMode.Report, Libc.SYS_prctl, Libc.PR_SET_NO_NEW_PRIVS, 1);
        }

        for (int cap = 0; cap <= LastCapability; cap++)
        {
            if ((caps.Bounding & (1UL << cap)) == 0)
            {
                program.Add(StepId.BoundingSet, StepMode.Report, Libc.SYS_prctl, Libc.PR_CAPBSET_DROP, cap);
            }
        }

        AddUser(program, user);
        AddCapabilities(program, caps, forFilter: !process.NoNewPrivileges && !process.SeccompFilter.IsEmpty);
        program.Add(StepId.Umask, StepMode.Ignore, Libc.SYS_umask, (nint)(user.HasUmask ? (int)user.Umask : DefaultUmask));
        program.Add(StepId.CloseFiles, StepMode.Report, Libc.SYS_fcntl, ClonedChild.Channel, Libc.F_SETFD, Libc.FD_CLOEXEC);
    }

    /// <summary>The last steps: the filter, which may refuse any call that follows it, and execve.</summary>
    /// <param name="program">Receives the steps.</param>
    /// <param name="process">What to run.</param>
    /// <returns>The exec step; its first argument is the path, to be filled in before the step is reached.</returns>
    public static ChildStep* AddExec(ChildProgram program, Process process)
    {
        ArgumentNullException.ThrowIfNull(program);
        ArgumentNullException.ThrowIfNull(process);
        if (!process.SeccompFilter.IsEmpty)
        {
            AddSeccomp(program, process);
        }

        return program.Add(
            StepId.Exec, StepMode.Report, Libc.SYS_execve, 0, program.Strings(process.Args), program.Strings(process.Env));
    }

    // The runtime ignores SIGPIPE, which exec would hand on; the kernel's struct sigaction is four words.
    private static void AddSignals(ChildProgram program) =>
        program.Add(StepId.Signals, StepMode.Report, Libc.SYS_rt_sigaction, Libc.SIGPIPE, program.Address(program.Allocate(32)), 0, 8);

    private static void AddUser(ChildProgram program, User user)
    {
        // The child is root with no groups already; each call saved is milliseconds where guest kernel code is emulated.
        bool changes = user.Uid != 0;
        if (changes)
        {
            program.Add(StepId.KeepCapabilities, StepMode.Report, Libc.SYS_prctl, Libc.PR_SET_KEEPCAPS, 1);
        }

        if (user.AdditionalGids.Count > 0)
        {
            uint[] groups = [.. user.AdditionalGids];
            program.Add(StepId.Groups, StepMode.Report, Libc.SYS_setgroups, groups.Length, program.Record<uint>(groups));
        }

        if (user.Gid != 0)
        {
            program.Add(StepId.Gid, StepMode.Report, Libc.SYS_setresgid, (nint)user.Gid, (nint)user.Gid, (nint)user.Gid);
        }

        if (changes)
        {
            program.Add(StepId.Uid, StepMode.Report, Libc.SYS_setresuid, (nint)user.Uid, (nint)user.Uid, (nint)user.Uid);
        }
    }

    // Without no_new_privs a filter takes CAP_SYS_ADMIN, which the exec that follows it takes away: what a process has
    // afterwards is made of the inheritable, ambient and bounding sets (capabilities(7)), and these do not change.
    private static void AddCapabilities(ChildProgram program, Capabilities caps, bool forFilter)
    {
        ulong added = forFilter ? 1UL << Libc.CAP_SYS_ADMIN : 0;
        Libc.__user_cap_header_struct header = new() { version = Libc._LINUX_CAPABILITY_VERSION_3 };
        Libc.__user_cap_data_struct[] data = new Libc.__user_cap_data_struct[2];
        for (int i = 0; i < 2; i++)
        {
            data[i].effective = (uint)((caps.Effective | added) >> (32 * i));
            data[i].permitted = (uint)((caps.Permitted | added) >> (32 * i));
            data[i].inheritable = (uint)(caps.Inheritable >> (32 * i));
        }

        program.Add(
            StepId.Capabilities,
            StepMode.Report,
            Libc.SYS_capset,
            program.Record([header]),
            program.Record<Libc.__user_cap_data_struct>(data));
        for (int cap = 0; cap <= LastCapability; cap++)
        {
            if ((caps.Ambient & (1UL << cap)) != 0)
            {
                program.Add(
                    StepId.AmbientCapabilities, StepMode.Report, Libc.SYS_prctl, Libc.PR_CAP_AMBIENT, Libc.PR_CAP_AMBIENT_RAISE, cap);
            }
        }
    }

    private static void AddSeccomp(ChildProgram program, Process process)
    {
        const int instructionSize = 8;
        ByteString filter = process.SeccompFilter;
        nint code = program.Record(filter.Span);
        // struct sock_fprog: a count and, after padding, a pointer.
        nint fprog = program.Record([(nint)(filter.Length / instructionSize), code]);
        program.Add(
            StepId.Seccomp, StepMode.Report, Libc.SYS_seccomp, Libc.SECCOMP_SET_MODE_FILTER, (nint)process.SeccompFlags, fprog);
    }
}
