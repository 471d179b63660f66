using MicroVm.Agent.Containers;
using MicroVm.Agent.Rootfs;
using MicroVm.Agent.Stdio;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using Xunit;

namespace MicroVm.Agent.Tests;

/// <summary>
/// Makes real containers on the host from a busybox root, by the agent's own set-up code, each in a mount namespace that the
/// set-up thread makes for itself, so that nothing of the host changes.
/// </summary>
internal sealed unsafe class ContainerFixture : IDisposable
{
    private readonly string _base = Directory.CreateTempSubdirectory("agent-test").FullName;
    private readonly EventLoop _loop = new();
    private readonly StreamTable _streams = new();
    private readonly SetupContext _context;
    private readonly List<Container> _containers = [];

    private ContainerFixture()
    {
        AgentPaths paths = new() { FileSystems = _base + "/fs", Staging = _base + "/staging", Own = _base + "/own", Nodes = _base + "/nodes" };
        Directory.CreateDirectory(paths.Own);
        Directory.CreateDirectory(paths.Nodes);
        Directory.CreateDirectory(paths.FileSystems);
        Directory.CreateDirectory(paths.Staging);
        RootPath = paths.FileSystems + "/share/rootfs";
        Directory.CreateDirectory(RootPath + "/bin");
        Directory.CreateDirectory(RootPath + "/etc");
        File.Copy("/bin/busybox", RootPath + "/bin/busybox");
        foreach (string applet in (ReadOnlySpan<string>)["sh", "cat", "echo", "ls", "ps", "mount", "hostname", "id", "tty", "stty", "head", "touch", "readlink", "stat", "sleep", "test", "wc", "grep", "pwd"])
        {
            File.CreateSymbolicLink($"{RootPath}/bin/{applet}", "busybox");
        }

        SafeFd proc = SafeFd.From(Libc.open("/proc", Libc.O_PATH | Libc.O_CLOEXEC, 0), "open", "/proc");
        // The "virtio-fs" is a directory of the host.
        _context = new SetupContext(paths, new FileSystems(paths, (_, _) => { }), new ProcessTable(), proc);
    }

    internal string RootPath { get; }

    /// <summary>A fixture, or a skipped test.</summary>
    internal static ContainerFixture Create()
    {
        Skip.IfNot(Libc.geteuid() == 0, "not root: making containers was NOT tested");
        Skip.IfNot(File.Exists("/bin/busybox"), "busybox-static is not installed: making containers was NOT tested");
        return new ContainerFixture();
    }

    internal static ContainerSpec Spec(string script, bool terminal = false)
    {
        ContainerSpec spec = new()
        {
            Root = new Root { FsTag = "share", FsPath = "rootfs" },
            Hostname = "inside",
            Process = new Process { Cwd = "/", Terminal = terminal, User = new User(), ConsoleWidth = 99, ConsoleHeight = 33 },
        };
        spec.Process.Args.AddRange(["sh", "-c", script]);
        spec.Process.Env.Add("PATH=/bin");
        foreach (Namespace.Types.Kind kind in (ReadOnlySpan<Namespace.Types.Kind>)[Namespace.Types.Kind.Mount, Namespace.Types.Kind.Pid, Namespace.Types.Kind.Ipc, Namespace.Types.Kind.Uts, Namespace.Types.Kind.Network])
        {
            spec.Namespaces.Add(new Namespace { Kind = kind });
        }

        Add(spec, "proc", "/proc", 14, "");
        Add(spec, "tmpfs", "/dev", 2, "mode=755");
        Add(spec, "devpts", "/dev/pts", 10, "newinstance,ptmxmode=0666,mode=0620");
        return spec;
    }

    internal static Mount Add(ContainerSpec spec, string type, string destination, ulong flags, string data)
    {
        Mount mount = new() { Type = type, Source = type, Destination = destination, Flags = flags, Data = data };
        spec.Mounts.Add(mount);
        return mount;
    }

    /// <summary>Creates, starts and waits; what the process wrote, and wait(2)'s status.</summary>
    internal (string Output, int Status) Run(ContainerSpec spec, byte[]? input = null)
    {
        ContainerProcess init = CreateContainer(spec, out SafeFd stdin, out SafeFd stdout);
        return Finish(init, start: true, stdin, stdout, input);
    }

    internal ContainerProcess CreateContainer(
        ContainerSpec spec, out SafeFd stdin, out SafeFd stdout, IReadOnlyList<(int Flag, SafeFd PidFd)>? joins = null, NamespaceProc? proc = null)
    {
        Container container = new("c" + _containers.Count, spec) { Proc = proc };
        StdioPorts ports = Connect(out stdin, out stdout);
        container.Init = new ContainerProcess(container, "", spec.Process, new ProcessStdio(_streams, ports, spec.Process.Terminal));
        _containers.Add(container);
        OnThread(
            new ContainerSetup(_context, container.Init, joins ?? []).Run,
            before: () =>
            {
                // The host's mounts may be shared: what the set-up mounts must not come back.
                Check.Result(Libc.unshare(Libc.CLONE_FS | Libc.CLONE_NEWNS), "unshare");
                Check.Result(Libc.mount(null, "/", null, (nuint)(Libc.MS_PRIVATE | Libc.MS_REC), null), "mount");
            });
        return container.Init;
    }

    internal (string Output, int Status) Exec(Container container, Process process)
    {
        StdioPorts ports = Connect(out SafeFd stdin, out SafeFd stdout);
        ContainerProcess exec = new(container, "e" + container.Execs.Count, process, new ProcessStdio(_streams, ports, process.Terminal));
        container.Execs.Add(exec.ExecId, exec);
        OnThread(new ExecSetup(_context, exec, container.Init!.Child!.PidFd!, cgroup: "").Run, before: () => { });
        return Finish(exec, start: false, stdin, stdout, null);
    }

    internal (string Output, int Status) Finish(ContainerProcess process, bool start, SafeFd stdin, SafeFd stdout, byte[]? input)
    {
        process.Stdio.Start(_loop);
        if (start)
        {
            process.Child!.Go();
        }

        Thread writer = new(() => Write(stdin, input ?? []));
        writer.Start();
        byte[]? output = null;
        Thread reader = new(() =>
        {
            output = Read(stdout);
            _loop.Post(() => { });
        });
        reader.Start();
        int status = 0;
        bool ended = false;
        while (Volatile.Read(ref output) is null)
        {
            _loop.RunOnce(ended ? 1000 : 20);
            if (!ended && Libc.waitpid(process.Child!.Pid, &status, Libc.__WALL | Libc.WNOHANG) > 0)
            {
                // In the guest the reaper tells it: a terminal's output ends with its process.
                ended = true;
                process.Stdio.CloseInput();
            }
        }

        writer.Join();
        reader.Join();
        while (!ended && Libc.waitpid(process.Child!.Pid, &status, Libc.__WALL) < 0)
        {
            Assert.Equal(Errno.EINTR, Check.LastErrno);
        }

        stdin.Dispose();
        stdout.Dispose();
        return (System.Text.Encoding.UTF8.GetString(output!), status);
    }

    public void Dispose()
    {
        foreach (Container container in _containers)
        {
            container.Init!.Child?.Signal(Libc.SIGKILL);
            container.Dispose();
        }

        _context.Proc.Dispose();
        _loop.Dispose();
        Directory.Delete(_base, recursive: true);
    }

    /// <summary>startContainer hooks, as the service runs them before it lets the init exec.</summary>
    internal void RunStartHooks(ContainerProcess init) =>
        OnThread(new ContainerHooks(_context, init.Container, init.Child!.PidFd!).RunStartContainer, before: () => { });

    /// <summary>Root of the "virtio-fs" that exports come from.</summary>
    internal string SharePath => Path.GetDirectoryName(RootPath)!;

    private void OnThread(Action body, Action before)
    {
        Exception? failure = null;
        Thread thread = new(() =>
        {
            try
            {
                before();
                body();
            }
            catch (Exception e)
            {
                failure = e;
            }
        });
        thread.Start();
        while (!thread.Join(5))
        {
            // In the guest the reaper does this.
            foreach (int pid in _context.Processes.Helpers)
            {
                int status;
                if (Libc.waitpid(pid, &status, Libc.WNOHANG | Libc.__WALL) == pid)
                {
                    _context.Processes.EndHelper(pid, status);
                }
            }
        }

        if (failure is not null)
        {
            System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(failure);
        }
    }

    private StdioPorts Connect(out SafeFd stdin, out SafeFd stdout)
    {
        (stdin, SafeFd agentIn) = UnixSocket.Pair();
        (stdout, SafeFd agentOut) = UnixSocket.Pair();
        foreach (SafeFd fd in (ReadOnlySpan<SafeFd>)[agentIn, agentOut])
        {
            _ = Libc.fcntl(fd.Value, Libc.F_SETFL, Libc.O_RDWR | Libc.O_NONBLOCK);
        }

        _streams.Add(11, agentIn);
        _streams.Add(12, agentOut);
        return new StdioPorts { Stdin = 11, Stdout = 12 };
    }

    private static void Write(SafeFd fd, byte[] bytes)
    {
        fixed (byte* p = bytes)
        {
            for (int done = 0; done < bytes.Length;)
            {
                nint n = Libc.send(fd.Value, p + done, (nuint)(bytes.Length - done), Libc.MSG_NOSIGNAL);
                if (n < 0)
                {
                    return;
                }

                done += (int)n;
            }
        }

        _ = Libc.shutdown(fd.Value, Libc.SHUT_WR);
    }

    private static byte[] Read(SafeFd fd)
    {
        using MemoryStream all = new();
        byte[] buffer = new byte[65536];
        while (true)
        {
            nint n;
            fixed (byte* p = buffer)
            {
                n = Libc.read(fd.Value, p, (nuint)buffer.Length);
            }

            if (n <= 0)
            {
                return all.ToArray();
            }

            all.Write(buffer, 0, (int)n);
        }
    }
}
