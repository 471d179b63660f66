using MicroVm.Json;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Sandbox.Pods;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Streams;

namespace MicroVm.Sandbox.Proxies;

/// <summary>Entry point of the process that stands for a container or an exec; commands start it.</summary>
public static unsafe class ProxyMain
{
    private const int MaxRequest = 64 << 20;
    private const int Failure = 1;

    /// <summary>Whether a command started this process as a container's. The variable alone is not believed: anyone may set it.</summary>
    public static bool IsAsked => Environment.GetEnvironmentVariable(ProxyArguments.Marker) is not null && ProxyHandshake.Take();

    /// <summary>Runs a proxy process to its end. Does not return when a signal ended the process that it stands for.</summary>
    public static int Run()
    {
        HostStreams.Prepare();
        ProxyRequest request = ReadRequest();
        using ProxyCaller caller = new(new SafeFd(ProxyHandshake.CallerFd), request);
        ExitStatus? exit;
        try
        {
            exit = request.Process is null ? RunSandbox(request, caller) : RunExec(request, caller);
        }
        catch (Exception e)
        {
            caller.Fail(e switch
            {
                SandboxException or LinuxException => e.Message,
                OutOfMemoryException => "no thread, or no memory, is left for it on the host: its cgroup may have as many as its pids.max says",
                _ => $"internal error: {e}",
            });
            return Failure;
        }

        if (exit is { Signal: not 0 and var signal })
        {
            Die(signal);
        }

        return exit?.Status ?? Failure;
    }

    private static ExitStatus? RunSandbox(ProxyRequest request, ProxyCaller caller)
    {
        using SandboxProcess sandbox = new(request, caller, new SafeFd(ProxyHandshake.ProxyFd));
        return sandbox.Run() ? new ExitStatus(0, 0) : null;
    }

    private static ExitStatus? RunExec(ProxyRequest request, ProxyCaller caller)
    {
        using ExecProxy exec = new(request, caller);
        return exec.Run();
    }

    private static ProxyRequest ReadRequest()
    {
        using SafeFd pipe = new(ProxyHandshake.RequestFd);
        using SafeFd configuration = new(ProxyHandshake.ConfigurationFd);
        _ = Libc.fcntl(ProxyHandshake.CallerFd, Libc.F_SETFD, Libc.FD_CLOEXEC);
        byte[] bytes = HostFile.ReadToEnd(configuration, Oci.SpecReader.MaxBytes, "configuration");
        ProxyRequest request = JsonRecords.Read<ProxyRequest>(HostFile.ReadToEnd(pipe, MaxRequest, "request")) with { Configuration = bytes };
        _ = Libc.fcntl(ProxyHandshake.ProxyFd, Libc.F_SETFD, Libc.FD_CLOEXEC);
        if (request.HasTerminalFd)
        {
            _ = Libc.fcntl(ProxyHandshake.TerminalFd, Libc.F_SETFD, Libc.FD_CLOEXEC);
        }

        return request;
    }

    /// <summary>Re-raises the signal that ended the guest's process, so that our waiter sees the guest's exit reason.</summary>
    private static void Die(int signal)
    {
        // The guest's process may have dumped core; a dump of this one is useless.
        _ = Libc.prctl(Libc.PR_SET_DUMPABLE, 0, 0, 0, 0);
        Libc.sigaction_t standard = default;
        _ = Libc.sigaction(signal, &standard, null);
        _ = Libc.kill(Libc.getpid(), signal);

        // The signal may be blocked, or one that ends nobody by default.
        Thread.Sleep(100);
        Libc._exit(128 + signal);
    }
}
