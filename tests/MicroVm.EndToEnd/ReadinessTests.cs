using System.Diagnostics;
using System.Globalization;
using System.Text;
using MicroVm.EndToEnd.Support;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.EndToEnd;

/// <summary>NOTIFY_SOCKET of the caller: the container says that it is ready, as services of systemd do.</summary>
public sealed unsafe class ReadinessTests
{
    [SkippableFact]
    public void TheContainersNoticeGoesToTheCallersSocket()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("/bin/notify", "STATUS=soon", "READY=1\nSTATUS=there", "READY=2");
        bundle.AddGuestProgram("notify");
        bundle.Save();
        using DetachedContainer c = new(bundle);
        using SafeFd manager = UnixDatagram.Bind(c["manager"]);
        AwaitReady(c, manager, "READY=1\n");
        Assert.Equal("running", c.Status);
        c.Call("kill", "--all").EnsureSuccess();
    }

    [SkippableFact]
    public void ContainersOfOneVmHaveEachASocketOfItsOwn()
    {
        Installation.RequireRuntime();
        using Bundle firstBundle = Bundle.Create("/bin/notify", "READY=first"), secondBundle = Bundle.Create("/bin/notify", "READY=second");
        using DetachedContainer first = new(firstBundle), second = new(secondBundle, first.Root);
        foreach (DetachedContainer c in (DetachedContainer[])[first, second])
        {
            c.Bundle.AddGuestProgram("notify");
            if (c == second)
            {
                c.Bundle.Linux["namespaces"]!.AsArray().Single(n => (string?)n!["type"] == "network")!["path"] = $"/proc/{first.Pid}/ns/net";
            }

            c.Bundle.Save();
            using SafeFd manager = UnixDatagram.Bind(c["manager"]);
            AwaitReady(c, manager, c == first ? "READY=first\n" : "READY=second\n");
        }

        first.Call("delete", "--force").EnsureSuccess();
        Assert.Equal("running", second.Status);
        Assert.Equal("/run/notify/notify.sock\n", second.Raw("exec", second.Id, "sh", "-c", "ls /run/notify/*").EnsureSuccess().StandardOutput);
        second.Call("delete", "--force").EnsureSuccess();
    }

    [SkippableFact]
    public void AContainerThatEndsWithoutANoticeIsNotWaitedFor()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("echo $NOTIFY_SOCKET; test -S /run/notify/notify.sock && echo is a socket; exit 3");
        bundle.Save();
        using DetachedContainer c = new(bundle);
        using SafeFd manager = UnixDatagram.Bind(c["manager"]);
        using Process create = Begin(c, "create", $"--bundle {bundle.Path} --pid-file {c["pid"]}");
        Assert.Equal(0, DetachedContainer.End(create));
        using Process start = Begin(c, "start", "");
        int status = DetachedContainer.Reap(c.Pid);
        Assert.Equal(0, DetachedContainer.End(start));
        Assert.Equal(3, status);
        Assert.Equal("/run/notify/notify.sock\nis a socket\n", File.ReadAllText(c["create.out"]));
        Span<byte> buffer = stackalloc byte[16];
        Assert.Null(UnixDatagram.Receive(manager, buffer));
    }

    [SkippableFact]
    public void AContainerIsNotReadyBecauseAnotherOneOfItsVmIs()
    {
        Installation.RequireKvm();
        using Bundle firstBundle = Bundle.Create("/bin/notify", "READY=1"), secondBundle = Bundle.Create("sleep 1; exit 3");
        firstBundle.AddGuestProgram("notify");
        firstBundle.Save();
        using DetachedContainer first = new(firstBundle);
        using SafeFd manager = UnixDatagram.Bind(first["manager"]);
        using Process run = Begin(first, "run", $"--detach --bundle {firstBundle.Path} --pid-file {first["pid"]}");
        Assert.Equal("READY=1\n", Next(manager, out _));
        Assert.StartsWith("MAINPID=", Next(manager, out _), StringComparison.Ordinal);
        Next(manager, out SafeFd? barrier);
        barrier!.Dispose();
        Assert.Equal(0, DetachedContainer.End(run));

        // The second says nothing, and its end is the end of waiting for it, though the VM goes on.
        secondBundle.Linux["namespaces"]!.AsArray().Single(n => (string?)n!["type"] == "ipc")!["path"] = $"/proc/{first.Pid}/ns/ipc";
        secondBundle.Save();
        using DetachedContainer second = new(secondBundle, first.Root);
        using SafeFd other = UnixDatagram.Bind(second["manager"]);
        using Process create = Begin(second, "create", $"--bundle {secondBundle.Path} --pid-file {second["pid"]}");
        Assert.Equal((0, ""), (DetachedContainer.End(create), File.ReadAllText(second["create.err"])));
        using Process start = Begin(second, "start", "");
        Assert.Equal(3, DetachedContainer.Reap(second.Pid));
        Assert.Equal((0, ""), (DetachedContainer.End(start), File.ReadAllText(second["start.err"])));
        Span<byte> buffer = stackalloc byte[16];
        Assert.Null(UnixDatagram.Receive(other, buffer));
        Assert.Equal("running", first.Status);
    }

    [SkippableFact]
    public void ASocketThatNobodyHasIsAnError()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("sleep 1000");
        bundle.Save();
        using DetachedContainer c = new(bundle);
        using Process run = Begin(c, "run", $"--detach --bundle {bundle.Path}");
        Assert.Equal(1, DetachedContainer.End(run));
        Assert.Contains("the socket that NOTIFY_SOCKET names cannot be used: connect", File.ReadAllText(c["run.err"]), StringComparison.Ordinal);
        Assert.Equal("", c.Raw("list", "--quiet").EnsureSuccess().StandardOutput);
    }

    /// <summary>Runs the container in the background, and reads what the command tells its manager.</summary>
    private static void AwaitReady(DetachedContainer c, SafeFd manager, string line)
    {
        using Process run = Begin(c, "run", $"--detach --bundle {c.Bundle.Path} --pid-file {c["pid"]}");
        Assert.Equal(line, Next(manager, out _));
        Assert.Equal(string.Create(CultureInfo.InvariantCulture, $"MAINPID={c.Pid}\n"), Next(manager, out _));
        if (Installation.IsMicroVm)
        {
            // As later versions of runc: the command stays until the manager has read everything.
            Assert.Equal("BARRIER=1", Next(manager, out SafeFd? barrier));
            Assert.False(run.HasExited);
            barrier!.Dispose();
        }

        Assert.Equal(0, DetachedContainer.End(run));
    }

    private static Process Begin(DetachedContainer c, string command, string flags) => Process.Start(
        "sh",
        ["-c", $"NOTIFY_SOCKET={c["manager"]} exec {Installation.Runtime} --root {c.Root} {command} {flags} {c.Id} </dev/null >{c[command + ".out"]} 2>{c[command + ".err"]}"]);

    private static string Next(SafeFd manager, out SafeFd? fd)
    {
        Libc.pollfd poll = new() { fd = manager.Value, events = Libc.POLLIN };
        Assert.True(Libc.poll(&poll, 1, (int)Installation.RunDeadline.TotalMilliseconds) > 0, "no datagram came");
        List<SafeFd> fds = [];
        byte[] buffer = new byte[4096];
        int n = FdReceiver.Receive(manager, buffer, fds, out Errno errno);
        Assert.True(n > 0, $"nothing was received: {errno}");
        fd = fds.SingleOrDefault();
        return Encoding.UTF8.GetString(buffer, 0, n);
    }
}
