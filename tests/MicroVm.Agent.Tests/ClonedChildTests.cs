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
        ProcessSteps.AddIdentity(child.Program, process);
        child.AddWait();
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
