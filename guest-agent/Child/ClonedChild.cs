using MicroVm.Agent.Cgroups;
using MicroVm.Agent.Rootfs;
using MicroVm.Linux;
using MicroVm.Linux.Child;
using MicroVm.Linux.Native;

namespace MicroVm.Agent.Child;

/// <summary>
/// A cloned child: its program, its pidfd and the two pipes by which it reports and waits. Owns all of them. Used by one
/// thread at a time: the setup thread, then the loop's.
/// </summary>
public sealed unsafe class ClonedChild : IDisposable
{
    private readonly SafeFd _goRead;
    private readonly SafeFd _reportWrite;
    private readonly SafeFd _go;

    /// <summary>Makes the pipes and an empty program.</summary>
    /// <param name="shareMemory">The child will share the agent's memory (CLONE_VM), which only a time namespace forbids.</param>
    /// <exception cref="LinuxException">No descriptor or memory is free.</exception>
    public ClonedChild(bool shareMemory)
    {
        ShareMemory = shareMemory;
        (_goRead, _go) = Pipe.Create();
        (Report, _reportWrite) = Pipe.Create();
        Program = new ChildProgram(_reportWrite.Value, sharedMemory: !shareMemory);
    }

    /// <summary>What the child does.</summary>
    public ChildProgram Program { get; }

    /// <summary>The read end of the report pipe.</summary>
    public SafeFd Report { get; }

    /// <summary>Whether the child shares the agent's memory.</summary>
    public bool ShareMemory { get; }

    /// <summary>The child's id in the agent's PID namespace; 0 before <see cref="Spawn"/>.</summary>
    public int Pid { get; private set; }

    /// <summary>The child's pidfd, from <see cref="Spawn"/> on.</summary>
    public SafeFd? PidFd { get; private set; }

    /// <summary>Appends a step that reports a milestone.</summary>
    public void AddReport(StepId id) => Program.AddReport((uint)id, _reportWrite.Value);

    /// <summary>Appends a step that waits for <see cref="Go"/>.</summary>
    public void AddWait() => Program.AddWait(_goRead.Value);

    /// <summary>Clones the child.</summary>
    /// <param name="flags">CLONE_NEW* flags, and CLONE_FILES when descriptors that are opened later must reach the child.</param>
    /// <param name="cgroup">The cgroup that the child begins in; the agent's own when null.</param>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public void Spawn(ulong flags, ContainerCgroup? cgroup)
    {
        int pidfd = -1;
        Libc.clone_args args = new()
        {
            flags = flags | Libc.CLONE_PIDFD | Libc.CLONE_CLEAR_SIGHAND | (ShareMemory ? (ulong)Libc.CLONE_VM : 0),
            pidfd = (ulong)&pidfd,
            exit_signal = Libc.SIGCHLD,
        };
        if (cgroup is not null)
        {
            args.flags |= Libc.CLONE_INTO_CGROUP;
            args.cgroup = (ulong)cgroup.Directory.Value;
        }

        nint pid = ChildCode.Spawn(&args, Program.Steps);
        if (pid < 0)
        {
            throw new LinuxException((Errno)(-pid), "clone3");
        }

        Pid = (int)pid;
        PidFd = new SafeFd(pidfd);
    }

    /// <summary>Lets the child go on from a wait.</summary>
    public void Go()
    {
        byte one = 1;
        while (Check.Retry(Libc.write(_go.Value, &one, 1)))
        {
        }
    }

    /// <summary>Closes the child's ends here, once it has its own descriptor table: then its end is the report pipe's end.</summary>
    public void CloseChildEnds()
    {
        _goRead.Dispose();
        _reportWrite.Dispose();
    }

    /// <summary>Waits for a report; null when the child ended or, its ends being closed here, exec'd.</summary>
    public ChildReport? ReadReport()
    {
        Libc.pollfd* fds = stackalloc Libc.pollfd[2];
        fds[0] = new Libc.pollfd { fd = Report.Value, events = Libc.POLLIN };
        fds[1] = new Libc.pollfd { fd = PidFd!.Value, events = Libc.POLLIN };
        while (Libc.poll(fds, 2, -1) < 0 && Check.LastErrno == Errno.EINTR)
        {
        }

        return (fds[0].revents & Libc.POLLIN) != 0 ? TakeReport() : null;
    }

    /// <summary>Reads a report that is there; null at the end of the pipe.</summary>
    public ChildReport? TakeReport()
    {
        int* record = stackalloc int[2];
        nint n;
        do
        {
            n = Libc.read(Report.Value, record, 8);
        }
        while (Check.Retry(n));
        return n == 8 ? new ChildReport((StepId)record[0], (Errno)record[1]) : null;
    }

    /// <summary>Waits for the milestone <paramref name="id"/>.</summary>
    /// <exception cref="SetupException">The child failed or was killed.</exception>
    public void Expect(StepId id, string program, string cwd)
    {
        ChildReport? report = ReadReport();
        if (report is null)
        {
            throw new SetupException("the container's first process was killed while it was being set up");
        }

        if (report.Value.Id != id)
        {
            throw new SetupException(report.Value.Describe(program, cwd));
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

        nint result = Libc.syscall((nint)Libc.SYS_pidfd_send_signal, PidFd.Value, signal, 0, 0, 0, 0);
        if (result < 0 && Check.LastErrno == Errno.ESRCH)
        {
            return false;
        }

        Check.Result(result, "pidfd_send_signal");
        return true;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        CloseChildEnds();
        Report.Dispose();
        _go.Dispose();
        PidFd?.Dispose();
        Program.Dispose();
    }
}
