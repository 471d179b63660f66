using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Oci;
using MicroVm.Sandbox.HostCgroups;
using MicroVm.Sandbox.Proxies;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Streams;

namespace MicroVm.Sandbox.Runtime;

/// <summary>Executes further processes in containers.</summary>
internal sealed class ExecVerb(RuntimeContext runtime)
{
    /// <summary>Starts one more process in a container, and waits for its end unless it is detached.</summary>
    /// <returns>The process's exit status (128 + signal when one ended it); 0 when detached.</returns>
    internal int Exec(ExecRequest request)
    {
        (ContainerState state, ContainerStatus status) = runtime.Find(request.Id);
        if (status == ContainerStatus.Stopped)
        {
            throw new SandboxException("cannot exec in a stopped container");
        }

        // A cgroup that somebody else froze would hold the proxy process, too.
        if (!request.IgnorePaused && (status == ContainerStatus.Paused || new HostCgroup(state.Cgroups ?? []).IsFrozen()))
        {
            throw new SandboxException("cannot exec in a paused container (use --ignore-paused to override)");
        }

        HostStreams.Prepare();
        byte[] configuration = SpecReader.ReadBundleBytes(runtime.Store.FolderOf(request.Id));
        Oci.Config.Process process = ExecProcess.Build(request, SpecReader.ParseBundle(configuration).Process!);
        CheckTerminal(process.Terminal ?? false, request);
        ProxyRequest proxyRequest = runtime.Request(request.Id) with
        {
            Process = process,
            Configuration = configuration,
            Cgroup = request.Cgroup,
            Foreground = !request.Detach,
            ConsoleSocket = request.ConsoleSocket is null ? null : Path.GetFullPath(request.ConsoleSocket),
        };
        ProxyClient? child = null;
        using SignalRelay signals = new(() => child?.Process.Signal(Libc.SIGTERM));
        using ProxyClient owned = child = ProxyClient.Start(proxyRequest, runtime.Log);
        runtime.LogStep("the process on the host is started");
        ProcessHandles handles = new();
        Terminal? terminal = null;
        try
        {
            _ = child.Expect(ProxyMessageKind.Created);
            handles.Tell(child.Process, request.PidFile, request.PidfdSocket, ProcessHandles.OfExec);
            terminal = process.Terminal == true && !request.Detach ? ForegroundProcess.RawTerminal() : null;
            if (!request.Detach)
            {
                // The process runs: what comes from now on is for it.
                ForegroundProcess.HandOn(child, signals, terminal);
            }

            child.Proceed();
            _ = child.Expect(ProxyMessageKind.Ready);
            runtime.LogStep("the process runs");
            return request.Detach ? 0 : ForegroundProcess.Await(child);
        }
        catch
        {
            handles.Withdraw();
            throw;
        }
        finally
        {
            terminal?.Dispose();
        }
    }

    private static void CheckTerminal(bool terminal, ExecRequest request)
    {
        if (terminal && request.Detach && request.ConsoleSocket is null)
        {
            throw new SandboxException("cannot allocate tty if runc will detach without setting console socket");
        }

        if (request.ConsoleSocket is not null && !(terminal && request.Detach))
        {
            throw new SandboxException("cannot use console socket if runc will not detach or allocate tty");
        }

        if (terminal && !request.Detach && !CallerTerminal.Exists)
        {
            throw CallerTerminal.Missing;
        }
    }
}
