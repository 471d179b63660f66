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

    /// <summary>Joins namespaces of another process, and becomes root in its user namespace when that is one of them.</summary>
    /// <param name="program">Receives the steps.</param>
    /// <param name="pidfd">The other process; open until the child has exec'd.</param>
    /// <param name="flags">CLONE_NEW* flags; none adds nothing.</param>
    public static void AddJoin(ChildProgram program, SafeFd pidfd, int flags)
    {
        ArgumentNullException.ThrowIfNull(program);
        ArgumentNullException.ThrowIfNull(pidfd);
        if (flags != 0)
        {
            program.Add(StepId.JoinNamespace, StepMode.Report, Libc.SYS_setns, pidfd.Value, flags);
        }

        if ((flags & Libc.CLONE_NEWUSER) != 0)
        {
            AddNamespaceRoot(program);
        }
    }

    /// <summary>Becomes root of the user namespace that the child is in.</summary>
    public static void AddNamespaceRoot(ChildProgram program)
    {
        ArgumentNullException.ThrowIfNull(program);
        program.Add(StepId.UserId, StepMode.Report, Libc.SYS_setresgid, 0, 0, 0);
        program.Add(StepId.UserId, StepMode.Report, Libc.SYS_setresuid, 0, 0, 0);
    }

    /// <summary>Session, stdio, terminal and limits: what needs privileges.</summary>
    /// <param name="program">Receives the steps.</param>
    /// <param name="process">What to run.</param>
    /// <param name="stdio">The descriptors that become 0, 1 and 2; each above 2.</param>
    /// <param name="limits">Whether the child sets its resource limits itself, which in a user namespace it cannot raise (<see cref="ApplyLimits"/>).</param>
    /// <returns>The first of the three steps whose first argument is such a descriptor, for one that is known later.</returns>
    public static ChildStep* AddSession(ChildProgram program, Process process, ReadOnlySpan<int> stdio, bool limits = true)
    {
        ArgumentNullException.ThrowIfNull(program);
        ArgumentNullException.ThrowIfNull(process);
        program.Add(StepId.Session, StepMode.Report, Libc.SYS_setsid);
        ChildStep* first = program.Add(StepId.Stdio, StepMode.Report, Libc.SYS_dup3, stdio[0], 0, 0);
        program.Add(StepId.Stdio, StepMode.Report, Libc.SYS_dup3, stdio[1], 1, 0);
        program.Add(StepId.Stdio, StepMode.Report, Libc.SYS_dup3, stdio[2], 2, 0);

        if (process.Terminal)
        {
            program.Add(StepId.ControllingTerminal, StepMode.Report, Libc.SYS_ioctl, 0, (nint)Libc.TIOCSCTTY, 0);
        }

        AddSignals(program);
        foreach (Rlimit limit in limits ? process.Rlimits : [])
        {
            program.Add(
                StepId.Rlimit, StepMode.Report, Libc.SYS_prlimit64, 0, (nint)limit.Resource, program.Record([limit.Soft, limit.Hard]), 0);
        }

        if (process.Scheduler is { } s)
        {
            ulong[] attr =
            [
                48 | ((ulong)s.Policy << 32), s.Flags, (uint)s.Nice | ((ulong)s.Priority << 32), s.Runtime, s.Deadline, s.Period,
            ];
            program.Add(StepId.Scheduler, StepMode.Report, Libc.SYS_sched_setattr, 0, program.Record<ulong>(attr), 0);
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

        return first;
    }

    /// <summary>Sets the resource limits of a waiting child with the agent's rights.</summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public static void ApplyLimits(int pid, Process process)
    {
        ArgumentNullException.ThrowIfNull(process);
        ulong* values = stackalloc ulong[2];
        foreach (Rlimit limit in process.Rlimits)
        {
            values[0] = limit.Soft;
            values[1] = limit.Hard;
            Check.Result(
                Libc.syscall((nint)Libc.SYS_prlimit64, pid, (nint)limit.Resource, (nint)values, 0, 0, 0), "error setting rlimits");
        }
    }

    /// <summary>A program of the host, given by descriptor, in the namespaces that the child is in, as their root.</summary>
    /// <param name="program">Receives the steps.</param>
    /// <param name="executable">The program, O_PATH.</param>
    /// <param name="directory">The working directory.</param>
    /// <param name="stdio">The descriptors that become 0, 1 and 2; each above 2.</param>
    /// <param name="args">Its arguments.</param>
    /// <param name="env">Its environment.</param>
    public static void AddProgram(
        ChildProgram program, SafeFd executable, SafeFd directory, ReadOnlySpan<int> stdio, IReadOnlyList<string> args, IReadOnlyList<string> env)
    {
        ArgumentNullException.ThrowIfNull(program);
        ArgumentNullException.ThrowIfNull(executable);
        ArgumentNullException.ThrowIfNull(directory);
        for (int i = 0; i < stdio.Length; i++)
        {
            program.Add(StepId.Stdio, StepMode.Report, Libc.SYS_dup3, stdio[i], i, 0);
        }

        AddSignals(program);
        program.Add(StepId.WorkingDirectory, StepMode.Report, Libc.SYS_fchdir, directory.Value);
        program.Add(StepId.Umask, StepMode.Ignore, Libc.SYS_umask, DefaultUmask);
        program.Add(StepId.CloseFiles, StepMode.Report, Libc.SYS_close_range, 3, int.MaxValue, (nint)CloseRangeCloexec);
        program.Add(
            StepId.Exec,
            StepMode.Report,
            Libc.SYS_execveat,
            executable.Value,
            program.String(""),
            program.Strings(args),
            program.Strings(env),
            Libc.AT_EMPTY_PATH);
    }

    /// <summary>Identity: user, groups, capabilities, seccomp (unless it comes last), directory, umask.</summary>
    /// <param name="program">Receives the steps.</param>
    /// <param name="process">What to run.</param>
    /// <param name="lastFd">The descriptors above 2 are closed by exec but for those up to this number (2: all are).</param>
    public static void AddIdentity(ChildProgram program, Process process, int lastFd = 2)
    {
        ArgumentNullException.ThrowIfNull(program);
        ArgumentNullException.ThrowIfNull(process);
        Capabilities caps = process.Capabilities ?? new Capabilities();
        User user = process.User ?? new User();
        if (process.NoNewPrivileges)
        {
            program.Add(StepId.NoNewPrivileges, StepMode.Report, Libc.SYS_prctl, Libc.PR_SET_NO_NEW_PRIVS, 1);
        }
        else if (!process.SeccompFilter.IsEmpty)
        {
            // Without no_new_privs a filter needs CAP_SYS_ADMIN, so it is loaded before capabilities go.
            AddSeccomp(program, process);
        }

        for (int cap = 0; cap <= LastCapability; cap++)
        {
            if ((caps.Bounding & (1UL << cap)) == 0)
            {
                program.Add(StepId.BoundingSet, StepMode.Report, Libc.SYS_prctl, Libc.PR_CAPBSET_DROP, cap);
            }
        }

        // As runc does it: with root's rights, since the directory may be closed to the user.
        program.Add(StepId.WorkingDirectory, StepMode.Report, Libc.SYS_chdir, program.String(process.Cwd));
        AddUser(program, user);
        AddCapabilities(program, caps);
        program.Add(StepId.Umask, StepMode.Ignore, Libc.SYS_umask, (nint)(user.HasUmask ? (int)user.Umask : DefaultUmask));
        program.Add(StepId.CloseFiles, StepMode.Report, Libc.SYS_close_range, lastFd + 1, int.MaxValue, (nint)CloseRangeCloexec);
    }

    /// <summary>Binds the child to the process's CPUs, when it names any.</summary>
    public static void AddAffinity(ChildProgram program, Process process)
    {
        ArgumentNullException.ThrowIfNull(program);
        ArgumentNullException.ThrowIfNull(process);
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

    /// <summary>The last steps: a filter that needs no privileges, and execve.</summary>
    /// <param name="program">Receives the steps.</param>
    /// <param name="process">What to run.</param>
    /// <returns>The exec step; its first argument is the path, to be filled in before the step is reached.</returns>
    public static ChildStep* AddExec(ChildProgram program, Process process)
    {
        ArgumentNullException.ThrowIfNull(program);
        ArgumentNullException.ThrowIfNull(process);
        if (process.NoNewPrivileges && !process.SeccompFilter.IsEmpty)
        {
            AddSeccomp(program, process);
        }

        return program.Add(
            StepId.Exec, StepMode.Report, Libc.SYS_execve, 0, program.Strings(process.Args), program.Strings(process.Env));
    }

    // The runtime ignores SIGPIPE, which exec would hand on; the kernel's struct sigaction is four words.
    private static void AddSignals(ChildProgram program) =>
        program.Add(StepId.Signals, StepMode.Report, Libc.SYS_rt_sigaction, Libc.SIGPIPE, (nint)program.Allocate(32), 0, 8);

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

    private static void AddCapabilities(ChildProgram program, Capabilities caps)
    {
        Libc.__user_cap_header_struct header = new() { version = Libc._LINUX_CAPABILITY_VERSION_3 };
        Libc.__user_cap_data_struct[] data = new Libc.__user_cap_data_struct[2];
        for (int i = 0; i < 2; i++)
        {
            data[i].effective = (uint)(caps.Effective >> (32 * i));
            data[i].permitted = (uint)(caps.Permitted >> (32 * i));
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
