using MicroVm.Agent.Child;
using MicroVm.Agent.Rootfs;
using MicroVm.Linux;
using MicroVm.Linux.Child;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using Xunit;

namespace MicroVm.Agent.Tests;

/// <summary>Runs children by the machine code of ChildCode, with and without shared memory.</summary>
public unsafe class ClonedChildTests
{
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_child_runs_its_steps_and_execs(bool shareMemory)
    {
        using ClonedChild child = new();
        Protocol.Agent.Process process = Shell("exit 42");
        child.AddReport(StepId.Created);
        child.AddWait();
        ChildStep* exec = ProcessSteps.AddExec(child.Program, process);
        child.Spawn(0, null, shareMemory);
        // The path is filled in after the clone: the child must see it, whether it shares the memory or not.
        exec->Arguments[0] = child.Program.String("/bin/sh");
        child.Expect(StepId.Created);
        child.Go();
        Assert.Null(child.TakeReport());
        Assert.Equal(42 << 8, Wait(child));
    }

    [Theory]
    [InlineData("/nonesuch", Errno.ENOENT)]
    [InlineData("/etc/passwd", Errno.EACCES)]
    public void A_failed_exec_is_reported_with_its_errno(string path, Errno expected)
    {
        using ClonedChild child = new();
        ChildStep* exec = ProcessSteps.AddExec(child.Program, Shell(""));
        exec->Arguments[0] = child.Program.String(path);
        child.Spawn(0, null);
        Assert.Equal(new ChildReport(StepId.Exec, expected), child.TakeReport());
        Assert.Equal(1 << 8, Wait(child));
    }

    [Fact]
    public void A_step_that_does_not_matter_may_fail_and_results_are_stored()
    {
        using ClonedChild child = new();
        child.Program.Add(StepId.Umask, StepMode.Ignore, Libc.SYS_chdir, child.Program.String("/nonesuch"));
        nint* slot = (nint*)child.Program.Allocate(8);
        child.Program.Add(StepId.Umask, StepMode.Report, Libc.SYS_umask, 18)->Store = (nint*)child.Program.Address(slot);
        *slot = -1;
        child.AddReport(StepId.Ready);
        child.AddWait();
        child.Spawn(0, null);
        child.Expect(StepId.Ready);
        Assert.InRange(*slot, 0, 511);
        child.Signal(Libc.SIGKILL);
        Assert.Equal(Libc.SIGKILL, Wait(child));
    }

    [Fact]
    public void A_child_that_is_killed_is_told_from_one_that_reports()
    {
        using ClonedChild child = new();
        child.AddWait();
        child.Spawn(0, null);
        child.Signal(Libc.SIGKILL);
        Assert.Throws<ChildFailedException>(() => child.Expect(StepId.Ready));
        Wait(child);
        Assert.False(child.Signal(0));
    }

    [SkippableFact]
    public void Session_identity_and_limits_are_those_of_the_plan()
    {
        Skip.IfNot(Libc.geteuid() == 0, "not root: user, groups, capabilities and limits of a child were NOT tested");
        int* pipe = stackalloc int[2];
        Assert.Equal(0, Libc.pipe2(pipe, Libc.O_CLOEXEC));
        using SafeFd read = new(pipe[0]);
        SafeFd write = new(pipe[1]);
        using SafeFd nothing = SafeFd.From(Libc.open("/dev/null", Libc.O_RDWR | Libc.O_CLOEXEC, 0), "open");
        Protocol.Agent.Process process = Shell(
            "cat /proc/self/status; ulimit -n; umask; pwd; id -G; cat /proc/self/oom_score_adj; ls -l /proc/self/fd; ps -o sid= -p $$; echo $$");
        const ulong caps = (1 << 0) | (1 << 10);
        process.User = new User { Uid = 1234, Gid = 2345, Umask = 63 };
        process.User.AdditionalGids.AddRange([7u, 8u]);
        process.Capabilities = new Capabilities { Bounding = caps, Permitted = caps, Effective = caps, Inheritable = caps, Ambient = 1 << 10 };
        process.NoNewPrivileges = true;
        process.Cwd = "/usr";
        process.Rlimits.Add(new Rlimit { Resource = Libc.RLIMIT_NOFILE, Soft = 111, Hard = 222 });
        // One instruction: allow.
        process.SeccompFilter = Google.Protobuf.ByteString.CopyFrom(6, 0, 0, 0, 0, 0, 0xff, 0x7f);
        using ClonedChild child = new();
        child.SetStdio(nothing.Value, write.Value, write.Value);
        ProcessSteps.AddSession(child.Program, process);
        child.AddWait();
        ProcessSteps.AddIdentity(child.Program, process);
        ProcessSteps.AddExec(child.Program, process)->Arguments[0] = child.Program.String("/bin/sh");
        child.Spawn(0, null);
        ProcessSteps.ApplyLimits(child.Pid, process);
        child.Go();
        write.Dispose();
        Assert.Null(child.TakeReport());
        string[] lines = ReadAll(read).Split('\n');
        Wait(child);
        Assert.Contains("Uid:\t1234\t1234\t1234\t1234", lines);
        Assert.Contains("Gid:\t2345\t2345\t2345\t2345", lines);
        Assert.Contains(lines, l => l.StartsWith("Groups:\t7 8", StringComparison.Ordinal));
        Assert.Contains("CapBnd:\t0000000000000401", lines);
        Assert.Contains("CapInh:\t0000000000000401", lines);
        Assert.Contains("CapAmb:\t0000000000000400", lines);
        Assert.Contains("CapEff:\t0000000000000400", lines);
        Assert.Contains("NoNewPrivs:\t1", lines);
        Assert.Contains("Seccomp:\t2", lines);
        // .NET ignores SIGPIPE, and exec would pass that on; what the runner of these tests ignores besides is not ours.
        const ulong sigPipe = 1ul << (Libc.SIGPIPE - 1);
        string ignored = Assert.Single(lines, l => l.StartsWith("SigIgn:", StringComparison.Ordinal));
        Assert.Equal(0ul, Convert.ToUInt64(ignored["SigIgn:".Length..].Trim(), 16) & sigPipe);
        Assert.Contains("111", lines);
        Assert.Contains("0077", lines);
        Assert.Contains("/usr", lines);
        // Its own session: the session's id is the shell's.
        Assert.Equal(lines[^2].Trim(), lines[^3].Trim());
    }

    /// <summary>All that the child calls on its way (9: mmap, 231: exit_group); a profile may lack or refuse each.</summary>
    public static TheoryData<long, bool> Calls()
    {
        TheoryData<long, bool> data = [];
        long[] calls =
        [
            Libc.SYS_read, Libc.SYS_write, Libc.SYS_close, 9, Libc.SYS_rt_sigaction, Libc.SYS_ioctl, Libc.SYS_fcntl, Libc.SYS_getcwd,
            Libc.SYS_chdir, Libc.SYS_fchdir, Libc.SYS_umask, Libc.SYS_setsid, Libc.SYS_setgroups, Libc.SYS_setresuid, Libc.SYS_setresgid,
            Libc.SYS_capset, Libc.SYS_prctl, Libc.SYS_sched_setaffinity, Libc.SYS_sched_setattr, Libc.SYS_ioprio_set, Libc.SYS_personality,
            Libc.SYS_unshare, Libc.SYS_setns, Libc.SYS_dup3, Libc.SYS_prlimit64, Libc.SYS_seccomp, Libc.SYS_execveat, Libc.SYS_fsopen,
            Libc.SYS_close_range, Libc.SYS_recvmsg, Libc.SYS_clone3, 231, AllButExec,
        ];
        foreach (long call in calls)
        {
            data.Add(call, false);
            data.Add(call, true);
        }

        return data;
    }

    [SkippableTheory]
    [MemberData(nameof(Calls))]
    public void A_filter_may_refuse_any_call_but_execve(long call, bool noNewPrivileges)
    {
        Skip.IfNot(Libc.geteuid() == 0, "not root: filters without no_new_privs were NOT tested");
        Protocol.Agent.Process process = Shell("exit 42");
        process.NoNewPrivileges = noNewPrivileges;
        process.SeccompFilter = Refuse(call);
        process.User = new User { Uid = 1234, Gid = 2345 };
        process.User.AdditionalGids.Add(7);
        using SafeFd nothing = SafeFd.From(Libc.open("/dev/null", Libc.O_RDWR | Libc.O_CLOEXEC, 0), "open");
        using ClonedChild child = new();
        child.SetStdio(nothing.Value, nothing.Value, nothing.Value);
        ProcessSteps.AddSession(child.Program, process);
        ProcessSteps.AddResources(child.Program, process);
        ProcessSteps.AddIdentity(child.Program, process);
        ProcessSteps.AddExec(child.Program, process)->Arguments[0] = child.Program.String("/bin/sh");
        child.Spawn(0, null);
        Assert.Null(child.TakeReport());
        Wait(child);
    }

    [SkippableTheory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_failed_exec_is_told_though_the_filter_refuses_to_say_so(bool noNewPrivileges)
    {
        Skip.IfNot(Libc.geteuid() == 0, "not root: filters without no_new_privs were NOT tested");
        Protocol.Agent.Process process = Shell("");
        process.NoNewPrivileges = noNewPrivileges;
        process.SeccompFilter = Refuse(AllButExec);
        using ClonedChild child = new();
        ProcessSteps.AddIdentity(child.Program, process);
        ProcessSteps.AddExec(child.Program, process)->Arguments[0] = child.Program.String("/nonesuch");
        child.Spawn(0, null);
        Assert.Equal(new ChildReport(StepId.Exec, Errno.ENOENT), child.TakeReport());
        Assert.Equal(Libc.SIGILL, Wait(child) & 0x7f);
    }

    [SkippableFact]
    public void The_right_to_load_a_filter_ends_with_exec()
    {
        Skip.IfNot(Libc.geteuid() == 0, "not root: capabilities of a child were NOT tested");
        int* pipe = stackalloc int[2];
        Assert.Equal(0, Libc.pipe2(pipe, Libc.O_CLOEXEC));
        using SafeFd read = new(pipe[0]);
        SafeFd write = new(pipe[1]);
        Protocol.Agent.Process process = Shell("cat /proc/self/status");
        const ulong caps = (1 << 0) | (1 << 10);
        process.Capabilities = new Capabilities { Bounding = caps, Permitted = caps, Effective = caps };
        process.SeccompFilter = Refuse(Libc.SYS_close_range);
        using ClonedChild child = new();
        child.SetStdio(write.Value, write.Value, write.Value);
        ProcessSteps.AddIdentity(child.Program, process);
        ProcessSteps.AddExec(child.Program, process)->Arguments[0] = child.Program.String("/bin/sh");
        child.Spawn(0, null);
        write.Dispose();
        Assert.Null(child.TakeReport());
        string[] lines = ReadAll(read).Split('\n');
        Wait(child);
        Assert.Contains("CapPrm:\t0000000000000401", lines);
        Assert.Contains("CapEff:\t0000000000000401", lines);
        Assert.Contains("Seccomp:\t2", lines);
        Assert.Contains("NoNewPrivs:\t0", lines);
    }

    [SkippableTheory]
    [InlineData("/usr", Errno.OK)]
    [InlineData("/proc/self/fd/3", Errno.ENOTDIR)]
    [InlineData("/proc/self/fd/4", Errno.ENOENT)]
    [InlineData("/proc/self/fd/5", Errno.ENOENT)]
    [InlineData("/proc/self/fd/6", Errno.ENOENT)]
    public void No_descriptor_of_the_agent_is_a_way_to_a_working_directory(string cwd, Errno expected)
    {
        Skip.IfNot(Libc.geteuid() == 0, "not root: descriptors of a child were NOT tested");
        using SafeFd directory = SafeFd.From(Libc.open("/", Libc.O_PATH | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0), "open");
        Protocol.Agent.Process process = Shell("exit 0");
        process.Cwd = cwd;
        using ClonedChild child = new();
        Assert.Equal(5, child.Keep(directory));
        ProcessSteps.AddIdentity(child.Program, process);
        ProcessSteps.AddExec(child.Program, process)->Arguments[0] = child.Program.String("/bin/sh");
        child.Spawn(0, null);
        Assert.Equal(expected == Errno.OK ? null : new ChildReport(StepId.WorkingDirectory, expected), child.TakeReport());
        Wait(child);
    }

    [SkippableFact]
    public void A_working_directory_that_is_not_beneath_the_root_is_refused()
    {
        Skip.IfNot(Libc.geteuid() == 0, "not root: another root was NOT tested");
        using ClonedChild child = new();
        child.Program.Add(StepId.WorkingDirectory, StepMode.Report, Libc.SYS_chdir, child.Program.String("/usr"));
        child.Program.Add(StepId.WorkingDirectory, StepMode.Report, Libc.SYS_chroot, child.Program.String("/proc"));
        child.Program.Add(StepId.WorkingDirectoryOutside, StepMode.Directory, Libc.SYS_getcwd, child.Program.Address(child.Program.Allocate(4096)), 4096);
        child.Spawn(0, null);
        Assert.Equal(new ChildReport(StepId.WorkingDirectoryOutside, Errno.ENOENT), child.TakeReport());
        Wait(child);
    }

    [Fact]
    public void Arguments_that_are_too_large_are_refused()
    {
        using ChildProgram program = new(3);
        LinuxException e = Assert.Throws<LinuxException>(() => program.String(new string('x', 9 << 20)));
        Assert.Equal(Errno.E2BIG, e.Errno);
        Assert.Equal(Errno.EINVAL, Assert.Throws<LinuxException>(() => program.String("a\0b")).Errno);
    }

    [Theory]
    [InlineData(StepId.Exec, Errno.ENOENT, "exec /x: no such file or directory")]
    [InlineData(StepId.WorkingDirectory, Errno.ENOTDIR, "chdir to cwd (\"/w\") set in config.json failed: not a directory")]
    public void Failures_are_told_in_runcs_words(StepId id, Errno errno, string expected) =>
        Assert.Equal(expected, new ChildReport(id, errno).Describe("/x", "/w"));

    private const long AllButExec = -1;

    // Refuses one call by EPERM, or all but execve; struct sock_filter is a code, two jumps and a constant.
    private static Google.Protobuf.ByteString Refuse(long call)
    {
        const ushort load = 0x20, jumpIfEqual = 0x15, answer = 6;
        const uint allow = 0x7fff0000, refuse = 0x00050001;
        bool all = call == AllButExec;
        using MemoryStream code = new();
        using BinaryWriter writer = new(code);
        foreach ((ushort op, byte jump, uint value) in ((ushort, byte, uint)[])
        [
            (load, 0, 0), (jumpIfEqual, 1, (uint)(all ? Libc.SYS_execve : call)), (answer, 0, all ? refuse : allow), (answer, 0, all ? allow : refuse),
        ])
        {
            writer.Write(op);
            writer.Write(jump);
            writer.Write((byte)0);
            writer.Write(value);
        }

        return Google.Protobuf.ByteString.CopyFrom(code.ToArray());
    }

    private static Protocol.Agent.Process Shell(string script)
    {
        Protocol.Agent.Process process = new() { Cwd = "/" };
        process.Args.AddRange(["sh", "-c", script]);
        process.Env.Add("PATH=/usr/bin:/bin");
        return process;
    }

    private static int Wait(ClonedChild child)
    {
        int status;
        int pid;
        do
        {
            pid = Libc.waitpid(child.Pid, &status, Libc.__WALL);
        }
        while (pid < 0 && Check.LastErrno == Errno.EINTR);
        Assert.Equal(child.Pid, pid);
        return status;
    }

    private static string ReadAll(SafeFd fd)
    {
        using MemoryStream all = new();
        byte[] buffer = new byte[4096];
        while (true)
        {
            nint n;
            fixed (byte* p = buffer)
            {
                n = Libc.read(fd.Value, p, (nuint)buffer.Length);
            }

            if (n <= 0)
            {
                return System.Text.Encoding.UTF8.GetString(all.ToArray());
            }

            all.Write(buffer, 0, (int)n);
        }
    }
}
