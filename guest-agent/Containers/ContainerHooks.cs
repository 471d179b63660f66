using System.Globalization;
using System.Text;
using Google.Protobuf.Collections;
using MicroVm.Agent.Cgroups;
using MicroVm.Agent.Child;
using MicroVm.Agent.Rootfs;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;

namespace MicroVm.Agent.Containers;

/// <summary>
/// Runs a container's hooks of its own namespaces (runtime-spec config.md, "POSIX-platform Hooks"), one after another, with
/// its state on standard input, and tells failures in runc's words. Used on a set-up thread, which waits for them.
/// </summary>
public sealed unsafe class ContainerHooks
{
    private const int KeptOutput = 4096;
    private readonly SetupContext _context;
    private readonly Container _container;
    private readonly SafeFd _init;
    private readonly int _flags;

    /// <summary>Prepares to run hooks of <paramref name="container"/>.</summary>
    /// <param name="context">The agent.</param>
    /// <param name="container">The container.</param>
    /// <param name="init">A pidfd of its init, which stays open until the hooks have ended.</param>
    public ContainerHooks(SetupContext context, Container container, SafeFd init)
    {
        ArgumentNullException.ThrowIfNull(container);
        _context = context;
        _container = container;
        _init = init;
        _flags = NamespaceFlags.Of(container.Spec.Namespaces);
    }

    /// <summary>
    /// createContainer: the host's programs, with the root built but not pivoted to, in whose directory they run. The calling
    /// thread is in the container's namespaces but those of <see cref="NamespaceFlags.JoinedByChild"/>.
    /// </summary>
    /// <exception cref="SetupException">A hook failed.</exception>
    public void RunCreateContainer(RootDirectory root)
    {
        ArgumentNullException.ThrowIfNull(root);
        if (_container.Spec.CreateContainerHooks.Count == 0)
        {
            return;
        }

        if (_container.Cgroup is not null && (_flags & Libc.CLONE_NEWCGROUP) != 0)
        {
            // From within the container's cgroup namespace nothing can be cloned into its cgroup.
            string path = string.Create(CultureInfo.InvariantCulture, $"{Libc.getpid()}/ns/cgroup");
            using SafeFd own = SafeFd.From(Libc.openat(_context.Proc.Value, path, Libc.O_RDONLY | Libc.O_CLOEXEC, 0), "open", path);
            Check.Result(Libc.setns(own.Value, Libc.CLONE_NEWCGROUP), "setns");
        }

        Run("createContainer", _container.Spec.CreateContainerHooks, (child, hook) =>
        {
            using RootDirectory export = RootDirectory.At(_context.FileSystems.PathOf(hook.FsTag));
            SafeFd program = export.Open(hook.FsPath);
            int executable = child.Keep(program), directory = child.Keep(root.Fd);
            int joined = _flags & NamespaceFlags.JoinedByChild;
            ProcessSteps.AddJoin(child, _init, joined);
            if ((joined & Libc.CLONE_NEWPID) != 0)
            {
                child.AddFork();
            }

            ProcessSteps.AddProgram(child, executable, directory, hook.Args, hook.Env);
            return (null, program);
        });
    }

    /// <summary>
    /// startContainer: the container's programs, as its process's user and with its rights. The calling thread joins the
    /// container's namespaces.
    /// </summary>
    /// <exception cref="SetupException">A hook failed.</exception>
    public void RunStartContainer()
    {
        NamespaceFlags.Join(_init, _flags);
        Run("startContainer", _container.Spec.StartContainerHooks, (child, hook) =>
        {
            Process process = _container.Spec.Process.Clone();
            process.Terminal = false;
            process.Args.Clear();
            process.Args.AddRange(hook.Args);
            process.Env.Clear();
            process.Env.AddRange(hook.Env);
            process.ClearOomScoreAdj();
            ProcessSteps.AddToContainer(child, _init, _flags, process, hook.Path);
            return (process, null);
        });
    }

    private void Run(string kind, RepeatedField<Hook> hooks, AddSteps addSteps)
    {
        for (int i = 0; i < hooks.Count; i++)
        {
            try
            {
                RunOne(hooks[i], addSteps);
            }
            catch (LinuxException e)
            {
                throw new SetupException(string.Create(CultureInfo.InvariantCulture, $"error running {kind} hook #{i}: {e.Operation}"), e);
            }
            catch (SetupException e)
            {
                throw new SetupException(string.Create(CultureInfo.InvariantCulture, $"error running {kind} hook #{i}: {e.Message}"), e);
            }
        }
    }

    private void RunOne(Hook hook, AddSteps addSteps)
    {
        using SafeFd input = MemoryFile.Create("hook-state", Encoding.UTF8.GetBytes(State(hook)));
        using SafeFd output = MemoryFile.Create("hook-stdout", []);
        using SafeFd error = MemoryFile.Create("hook-stderr", []);
        using ClonedChild child = new();
        child.SetStdio(input.Value, output.Value, error.Value);
        (Process? limits, SafeFd? program) = addSteps(child, hook);
        using SafeFd? held = program;
        try
        {
            _context.Processes.SpawnHelper(child, () => child.Spawn(0, _container.Cgroup));
        }
        catch (ChildFailedException e)
        {
            throw e.ToSetup(hook.Path, "/");
        }

        if (limits is not null && ProcessSteps.AwaitsLimits(limits))
        {
            ProcessSteps.ApplyLimits(child.Pid, limits);
            ProcessSteps.ApplyScheduler(child.Pid, limits);
            child.Go();
        }

        ChildReport? failure = child.TakeReport();
        bool inTime = failure is not null || WaitForEnd(child, hook.TimeoutSeconds);
        if (!inTime)
        {
            child.Signal(Libc.SIGKILL);
        }

        int status = _context.Processes.WaitHelper(child.Pid);
        if (failure is { } f)
        {
            throw new SetupException(f.Id == StepId.Exec ? $"fork/exec {hook.Path}: {ChildReport.Text(f.Errno)}" : f.Describe(hook.Path, "/"));
        }

        if (!inTime)
        {
            throw new SetupException(string.Create(CultureInfo.InvariantCulture, $"hook ran past specified timeout of {hook.TimeoutSeconds}.0s"));
        }

        if (status != 0)
        {
            ExitStatus exit = new((status >> 8) & 0xff, status & 0x7f);
            throw new SetupException($"error running hook: {exit.Reason}, stdout: {Text(output)}, stderr: {Text(error)}");
        }
    }

    private static bool WaitForEnd(ClonedChild child, uint timeoutSeconds)
    {
        long deadline = timeoutSeconds == 0 ? long.MaxValue : Environment.TickCount64 + (timeoutSeconds * 1000L);
        if (child.PidFd is null)
        {
            // It ended before its id was known.
            return true;
        }

        Libc.pollfd pfd = new() { fd = child.PidFd.Value, events = Libc.POLLIN };
        while (true)
        {
            int wait = timeoutSeconds == 0 ? -1 : (int)Math.Clamp(deadline - Environment.TickCount64, 0, int.MaxValue);
            int ready = Libc.poll(&pfd, 1, wait);
            if (ready > 0 || (ready == 0 && Environment.TickCount64 >= deadline))
            {
                return ready > 0;
            }
        }
    }

    // As runc, the init's id in its own PID namespace.
    private string State(Hook hook)
    {
        int pid = _container.Init!.Child!.Pid;
        string status = SmallFile.TryRead(_context.Proc, string.Create(CultureInfo.InvariantCulture, $"{pid}/status")) ?? "";
        string? line = status.Split('\n').FirstOrDefault(l => l.StartsWith("NSpid:", StringComparison.Ordinal));
        string own = line?.Split('\t', StringSplitOptions.RemoveEmptyEntries)[^1] ?? pid.ToString(CultureInfo.InvariantCulture);
        return hook.StateBeforePid + own + hook.StateAfterPid;
    }

    private static string Text(SafeFd file)
    {
        byte[] buffer = new byte[KeptOutput];
        fixed (byte* p = buffer)
        {
            return Encoding.UTF8.GetString(buffer, 0, (int)Math.Max(0, Libc.pread(file.Value, p, KeptOutput, 0)));
        }
    }

    // Adds what the child does; returns what has the limits of the hook, and a descriptor that stays open until it was cloned.
    private delegate (Process? Limits, SafeFd? Program) AddSteps(ClonedChild child, Hook hook);
}
