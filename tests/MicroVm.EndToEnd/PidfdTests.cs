using System.Globalization;
using MicroVm.EndToEnd.Support;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.EndToEnd;

/// <summary>`--pidfd-socket`, as runc 1.2 has it: the caller gets a pidfd of the process that stands for the container's.</summary>
public sealed class PidfdTests
{
    [SkippableFact]
    public void TheSocketGetsAPidfdOfTheProcess()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("trap 'exit 8' TERM; echo ready; while :; do sleep 0.1; done");
        using DetachedContainer c = new(bundle);
        using FdListener socket = new(c["pidfd"]);
        Assert.Equal(0, c.Create("--pidfd-socket", c["pidfd"]).ExitCode);
        (SafeFd init, string kind) = socket.Receive();
        using SafeFd owned = init;
        Assert.Equal(("standard", c.Pid), (kind, PidOf(init)));
        c.Call("start").EnsureSuccess();
        c.WaitForOutput("ready");

        c.Leave("exec", "-d", "--pid-file", c["exec-pid"], "--pidfd-socket", c["pidfd"], c.Id, "sleep", "1000").EnsureSuccess();
        (SafeFd exec, kind) = socket.Receive();
        using SafeFd ownedToo = exec;
        int execPid = int.Parse(File.ReadAllText(c["exec-pid"]), CultureInfo.InvariantCulture);
        Assert.Equal(("setns", execPid), (kind, PidOf(exec)));
        Signal(exec, Libc.SIGKILL);
        Assert.Equal(137, DetachedContainer.Reap(execPid));
        Signal(init, Libc.SIGTERM);
        Assert.Equal(8, DetachedContainer.Reap(c.Pid));
    }

    [SkippableFact]
    public void ASocketThatNobodyListensOnUndoesTheCreation()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("echo must not run");
        using DetachedContainer c = new(bundle);
        CommandResult create = c.Create("--pidfd-socket", "/no/such/socket");
        Assert.Equal(1, create.ExitCode);
        Assert.Contains("the pidfd cannot be sent to /no/such/socket: no such file or directory", create.StandardError, StringComparison.Ordinal);
        Assert.False(File.Exists(c["pid"]));
        Assert.Empty(Directory.EnumerateFileSystemEntries(c.Root));
    }

    private static int PidOf(SafeFd pidfd) => int.Parse(
        File.ReadLines($"/proc/self/fdinfo/{pidfd.Value}").Single(l => l.StartsWith("Pid:", StringComparison.Ordinal))[4..], CultureInfo.InvariantCulture);

    private static void Signal(SafeFd pidfd, int signal) =>
        Check.Result(Libc.syscall((nint)Libc.SYS_pidfd_send_signal, pidfd.Value, signal, 0, 0, 0, 0), "pidfd_send_signal");
}
