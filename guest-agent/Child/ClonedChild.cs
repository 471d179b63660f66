using MicroVm.Agent.Cgroups;
using MicroVm.Linux;
using MicroVm.Linux.Child;
using MicroVm.Linux.Native;

namespace MicroVm.Agent.Child;

/// <summary>
/// A cloned child: its program, its pidfd and the socket by which it reports and waits. Owns all of them. Used by one
/// thread at a time: the setup thread, then the loop's.
/// </summary>
/// <remarks>
/// The child execs <see cref="ChildCode.Executable"/> before it carries its program out, and has nothing of the agent
/// from then on but the descriptors that it was given. A child that joins a PID namespace with others in it clones
/// itself there when it has its identity (<see cref="AddFork"/>), so that these never meet the agent's memory, or rights that
/// the process is not to have.
/// </remarks>
public sealed unsafe class ClonedChild : IDisposable
{
    /// <summary>The child's descriptor for reports and waits.</summary>
    public const int Channel = 3;

    private const int ProgramFile = 4;
    private const int FirstKept = 5;
    private const int LaunchSteps = 24;
    private const int MaxEarly = 4;
    private readonly SafeFd _childEnd;
    private readonly List<SafeFd> _kept = [];
    private readonly int[] _stdio = [-1, -1, -1];

    // What the clone of a child that forks said before its parent did.
    private readonly Queue<ChildReport> _early = [];
    private bool _forks;
    private StepList? _launch;

    /// <summary>Makes the socket and an empty program.</summary>
    /// <param name="moreSteps">How many steps the program may have beside the usual ones.</param>
    /// <exception cref="LinuxException">No descriptor or memory is free.</exception>
    public ClonedChild(int moreSteps = 0)
    {
        (Report, _childEnd) = UnixSocket.Pair();
        try
        {
            Program = ChildProgram.ForExecutable(Channel, moreSteps);
        }
        catch
        {
            Report.Dispose();
            _childEnd.Dispose();
            throw;
        }
    }

    /// <summary>What the child does.</summary>
    public ChildProgram Program { get; }

    /// <summary>The agent's end of the socket: its end of file is the child's exec, or its end.</summary>
    public SafeFd Report { get; }

    /// <summary>The child's id in the agent's PID namespace; 0 before <see cref="Spawn"/>.</summary>
    public int Pid { get; private set; }

    /// <summary>The child's pidfd, from <see cref="Spawn"/> on; null when a child that forks ended at once.</summary>
    public SafeFd? PidFd { get; private set; }

    /// <summary>Whether <see cref="AddFork"/> was called: <see cref="Spawn"/> must be followed by <see cref="AwaitFork"/>.</summary>
    public bool Forks => _forks;

    /// <summary>The lowest number, from which on the child's own descriptors are numbered.</summary>
    public int FirstFree => FirstKept + _kept.Count;

    /// <summary>Gives the child a descriptor; its number there. Nothing is opened by the child before.</summary>
    /// <param name="fd">Borrowed until <see cref="Spawn"/>.</param>
    public int Keep(SafeFd fd)
    {
        _kept.Add(fd);
        return FirstKept + _kept.Count - 1;
    }

    /// <summary>The descriptors that become 0, 1 and 2; without this they are copies of <see cref="Channel"/>, to be replaced.</summary>
    public void SetStdio(int input, int output, int error) => (_stdio[0], _stdio[1], _stdio[2]) = (input, output, error);

    /// <summary>Appends a step that reports a milestone.</summary>
    public void AddReport(StepId id) => Program.AddReport((uint)id, Channel);

    /// <summary>Appends a step that waits for <see cref="Go()"/>.</summary>
    public void AddWait() => Program.AddWait(Channel);

    /// <summary>Appends a step that waits for <see cref="Go(SafeFd)"/>, and receives the descriptor as <paramref name="number"/>, the lowest that is free then.</summary>
    public void AddReceive(int number)
    {
        Libc.iovec vector = new() { iov_base = (byte*)Program.Address(Program.Allocate(8)), iov_len = 1 };
        const int control = 64;
        Libc.msghdr message = new()
        {
            msg_iov = (Libc.iovec*)Program.Record([vector]),
            msg_iovlen = 1,
            msg_control = (void*)Program.Address(Program.Allocate(control)),
            msg_controllen = control,
        };
        byte* at = Program.Allocate((nuint)sizeof(Libc.msghdr));
        *(Libc.msghdr*)at = message;
        Program.Add(StepId.Stdio, StepMode.Positive, Libc.SYS_recvmsg, Channel, Program.Address(at), Libc.MSG_CMSG_CLOEXEC);
        for (int i = 0; i < _stdio.Length; i++)
        {
            Program.Add(StepId.Stdio, StepMode.Report, Libc.SYS_dup3, number, i, 0);
        }
    }

    /// <summary>Appends the step from which on the child is another one, in the PID namespace that the steps before joined.</summary>
    public void AddFork()
    {
        _forks = true;
        Program.AddFork((uint)StepId.Forked);
    }

    /// <summary>Clones the child.</summary>
    /// <param name="flags">CLONE_NEW* flags. A child that is in a new user namespace waits for <see cref="Go()"/> before anything else.</param>
    /// <param name="cgroup">The cgroup that the child begins in; the agent's own when null.</param>
    /// <param name="shareMemory">Begin in the agent's memory, and not in a copy, which a new time namespace demands.</param>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public void Spawn(ulong flags, ContainerCgroup? cgroup, bool shareMemory = true)
    {
        List<SafeFd> raised = [];
        try
        {
            _launch ??= Launch(flags, raised);
            int pidfd = -1;
            Libc.clone_args args = new()
            {
                flags = flags | Libc.CLONE_PIDFD | Libc.CLONE_CLEAR_SIGHAND | (shareMemory ? (ulong)Libc.CLONE_VM : 0),
                pidfd = (ulong)&pidfd,
                exit_signal = Libc.SIGCHLD,
            };
            if (cgroup is not null)
            {
                args.flags |= Libc.CLONE_INTO_CGROUP;
                args.cgroup = (ulong)cgroup.Directory.Value;
            }

            nint pid = ChildCode.Spawn(&args, _launch.First);
            if (pid < 0)
            {
                throw new LinuxException((Errno)(-pid), "clone3");
            }

            Pid = (int)pid;
            PidFd = new SafeFd(pidfd);
        }
        finally
        {
            raised.ForEach(fd => fd.Dispose());
        }

        // The child has copies: its end of the socket must be the only one.
        _childEnd.Dispose();
        Program.CloseFile();
    }

    /// <summary>
    /// Waits until the child has cloned itself; from then on this is the clone. <see cref="PidFd"/> is null afterwards,
    /// until <see cref="OpenPidFd"/>.
    /// </summary>
    /// <exception cref="ChildFailedException">The child failed or was killed before.</exception>
    public void AwaitFork()
    {
        ChildReport? report;
        int forked;
        while ((report = AwaitReport()) is { } r)
        {
            // Not by what was reported: the clone has the same socket, and what it says may come first.
            forked = ForkedPid();
            if (r.Id == StepId.Forked || forked == 0 || _early.Count == MaxEarly)
            {
                break;
            }

            _early.Enqueue(r);
        }

        forked = ForkedPid();
        _ = Signal(Libc.SIGKILL);
        PidFd!.Dispose();
        PidFd = null;
        if (report?.Id != StepId.Forked || forked == 0)
        {
            if (forked != 0)
            {
                _ = Libc.kill(forked, Libc.SIGKILL);
            }

            throw new ChildFailedException(report?.Id == StepId.Forked ? null : report);
        }

        Pid = forked;
    }

    /// <summary>Opens the clone's pidfd. The caller knows that it was not reaped yet.</summary>
    /// <exception cref="LinuxException">No descriptor is free.</exception>
    public void OpenPidFd() =>
        PidFd = Linux.PidFd.Open(Pid);

    /// <summary>A descriptor that the child has, as the agent's own.</summary>
    /// <exception cref="LinuxException">It has none of that number.</exception>
    public SafeFd Take(int number) => SafeFd.From(
        Libc.pidfd_getfd(PidFd!.Value, number, 0), "pidfd_getfd");

    /// <summary>Lets the child go on from a wait.</summary>
    public void Go()
    {
        byte one = 1;
        while (Check.Retry(Libc.send(Report.Value, &one, 1, Libc.MSG_NOSIGNAL)))
        {
        }
    }

    /// <summary>Lets the child go on from <see cref="AddReceive"/>, with a descriptor, which stays the caller's.</summary>
    /// <exception cref="LinuxException">The child has ended.</exception>
    public void Go(SafeFd fd) => FdSender.Send(Report, [1], [fd]);

    /// <summary>Waits for a report; null when the child ended or exec'd.</summary>
    public ChildReport? ReadReport() => _early.TryDequeue(out ChildReport early) ? early : AwaitReport();

    private ChildReport? AwaitReport()
    {
        Libc.pollfd* fds = stackalloc Libc.pollfd[2];
        fds[0] = new Libc.pollfd { fd = Report.Value, events = Libc.POLLIN };
        fds[1] = new Libc.pollfd { fd = PidFd?.Value ?? -1, events = Libc.POLLIN };
        while (Libc.poll(fds, 2, -1) < 0 && Check.LastErrno == Errno.EINTR)
        {
        }

        return (fds[0].revents & Libc.POLLIN) != 0 ? Receive() : Failure;
    }

    /// <summary>Reads a report that is there; at the end null, or the failure that the child could not report.</summary>
    public ChildReport? TakeReport() => _early.TryDequeue(out ChildReport early) ? early : Receive();

    private ChildReport? Receive()
    {
        int* record = stackalloc int[2];
        nint n;
        do
        {
            n = Libc.read(Report.Value, record, 8);
        }
        while (Check.Retry(n));
        return n == 8 ? new ChildReport((StepId)record[0], (Errno)record[1]) : Failure;
    }

    /// <summary>Waits for the milestone <paramref name="id"/>.</summary>
    /// <exception cref="ChildFailedException">The child failed or was killed.</exception>
    public void Expect(StepId id)
    {
        ChildReport? report = ReadReport();
        if (report?.Id != id)
        {
            throw new ChildFailedException(report);
        }
    }

    /// <summary>Sends a signal. False: the process has ended.</summary>
    /// <exception cref="LinuxException">The signal does not exist.</exception>
    public bool Signal(int signal)
    {
        if (PidFd is null || PidFd.IsClosed)
        {
            return false;
        }

        bool sent = Linux.PidFd.Signal(PidFd, signal);
        if (!sent && Check.LastErrno != Errno.ESRCH)
        {
            Check.Throw("pidfd_send_signal");
        }

        return sent;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _childEnd.Dispose();
        Report.Dispose();
        PidFd?.Dispose();
        Program.Dispose();
    }

    // 0: there is none, or it cannot be known: the parent has ended, and a clone ends at its next wait.
    private int ForkedPid()
    {
        try
        {
            return ChildCode.ForkedPid(Pid);
        }
        catch (LinuxException)
        {
            return 0;
        }
    }

    private ChildReport? Failure =>
        Program.Failure is { Errno: not Errno.OK } main ? new ChildReport((StepId)main.Id, main.Errno)
        : _launch?.Failure is { Errno: not Errno.OK } launch ? new ChildReport((StepId)launch.Id, launch.Errno)
        : null;

    // From the clone to the exec of a memory of its own. What it is not given is closed, whatever it is.
    private StepList Launch(ulong flags, List<SafeFd> raised)
    {
        StepList steps = Program.LocalSteps(LaunchSteps);
        if ((flags & Libc.CLONE_NEWUSER) != 0)
        {
            // Until the maps are written: without an id that is root there, exec would take all rights away.
            steps.Add((uint)StepId.UserId, StepMode.Positive, Libc.SYS_read, _childEnd.Value, (nint)Program.Allocate(8), 1);
            steps.Add((uint)StepId.UserId, StepMode.Report, Libc.SYS_setresgid, 0, 0, 0);
            steps.Add((uint)StepId.UserId, StepMode.Report, Libc.SYS_setresuid, 0, 0, 0);
        }

        int executable = FirstFree;
        int[] sources = [.. _stdio, _childEnd.Value, Program.File.Value, .. _kept.Select(k => k.Value), ChildCode.Executable.Value];
        for (int target = 0; target <= executable; target++)
        {
            int source = sources[target] >= 0 ? sources[target] : _childEnd.Value;
            if (source <= executable)
            {
                // It would be overwritten before it is its turn.
                SafeFd copy = SafeFd.From(Libc.fcntl(source, Libc.F_DUPFD_CLOEXEC, executable + 1), "fcntl(F_DUPFD_CLOEXEC)");
                raised.Add(copy);
                source = copy.Value;
            }

            steps.Add((uint)StepId.Files, StepMode.Report, Libc.SYS_dup3, source, target, target == executable ? Libc.O_CLOEXEC : 0);
        }

        byte* name = Program.Allocate(8);
        "child\0"u8.CopyTo(new Span<byte>(name, 8));
        nint* arguments = (nint*)Program.Allocate(2 * (nuint)sizeof(nint));
        arguments[0] = (nint)name;
        steps.Add((uint)StepId.Files, StepMode.Report, Libc.SYS_close_range, executable + 1, int.MaxValue);
        steps.Add(
            (uint)StepId.Launch, StepMode.Report, Libc.SYS_execveat, executable, (nint)(name + 5), (nint)arguments, (nint)(arguments + 1), Libc.AT_EMPTY_PATH);
        return steps;
    }
}
