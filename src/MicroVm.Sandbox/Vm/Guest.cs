using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.Proxies;
using MicroVm.Sandbox.Runtime;
using MicroVm.Ttrpc;

namespace MicroVm.Sandbox.Vm;

/// <summary>The agent of a running VM. A call that the VM's end cuts short says how the VM ended.</summary>
internal sealed class Guest : IDisposable
{
    // How long a VMM that closed its sockets may take to end.
    private const int EndMilliseconds = 2000;
    private readonly Lock _lock = new();
    private readonly Vmm _vmm;
    private readonly string _vsockPath;
    private GuestSocketRelay? _sockets;

    private Guest(Vmm vmm, string vsockPath, AgentClient agent)
    {
        (_vmm, _vsockPath) = (vmm, vsockPath);
        Agent = agent;
    }

    /// <summary>For calls that may fail.</summary>
    internal AgentClient Agent { get; }

    /// <summary>Connects to the agent, which may take <paramref name="timeout"/> for this and for each call.</summary>
    /// <exception cref="SandboxException">The agent does not answer, or the VM ended.</exception>
    internal static Guest Connect(Vmm vmm, string vsockPath, TimeSpan timeout)
    {
        try
        {
            return new Guest(vmm, vsockPath, AgentClient.Connect(vsockPath, timeout, timeout, GuestThread.Begin));
        }
        catch (Exception e) when (e is TtrpcException or LinuxException)
        {
            throw Failure(vmm, "connect to the agent", e);
        }
    }

    /// <summary>Makes a call.</summary>
    /// <exception cref="SandboxException">It failed; what the agent says is passed on, else how the VM ended.</exception>
    internal T Call<T>(string doing, Func<AgentClient, T> call)
    {
        try
        {
            return call(Agent);
        }
        catch (Exception e) when (e is TtrpcException or LinuxException)
        {
            throw Failure(_vmm, doing, e);
        }
    }

    /// <summary>
    /// Why a call about a container failed, for the command's user: a VM that has been killed has no container that runs, one that
    /// ended otherwise says how, and an agent that refuses says why.
    /// </summary>
    internal SandboxException Refusal(Exception failure) => failure switch
    {
        TtrpcException { Code: StatusCode.Unavailable } when HasEnded(_vmm) => new SandboxException(
            _vmm.Process.TryWait() is { Signal: Libc.SIGKILL } ? RuntimeTexts.NotRunning : _vmm.Describe(RuntimeTexts.NotRunning), failure),
        TtrpcException { Code: not StatusCode.NotFound } => new SandboxException(failure.Message, failure),
        _ => new SandboxException(RuntimeTexts.NotRunning, failure),
    };

    /// <summary>Waits for a container's init, as long as it takes.</summary>
    /// <exception cref="SandboxException">The VM ended.</exception>
    internal WaitProcessResponse WaitProcess(string containerId) =>
        Call("the VM ended while the container ran", agent => agent.WaitProcess(new ProcessId { ContainerId = containerId }));

    /// <summary>What listens on the host in place of containers' sockets; started by the first container that has a folder for it.</summary>
    /// <exception cref="SandboxException">It cannot be started.</exception>
    internal GuestSocketRelay NeedSockets()
    {
        lock (_lock)
        {
            try
            {
                return _sockets ??= new GuestSocketRelay(_vmm.Sockets, _vsockPath, Agent);
            }
            catch (LinuxException e)
            {
                throw new SandboxException($"sockets of the container cannot be listened for: {e.Message}", e);
            }
        }
    }

    /// <summary>Lets go of sockets below exports that the VMM has taken out.</summary>
    internal void SettleSockets() => _sockets?.Settle();

    public void Dispose()
    {
        Agent.Dispose();
        _sockets?.Dispose();
    }

    private static SandboxException Failure(Vmm vmm, string doing, Exception e)
    {
        if (e is TtrpcException { Code: StatusCode.DataLoss })
        {
            return new SandboxException($"{doing}: the agent broke the protocol: {e.Message}", e);
        }

        bool lost = e is LinuxException or TtrpcException { Code: StatusCode.Unavailable };
        if (!lost)
        {
            return new SandboxException(e is TtrpcException { Code: StatusCode.DeadlineExceeded } ? $"{doing}: {e.Message}" : e.Message, e);
        }

        return HasEnded(vmm)
            ? new SandboxException(vmm.Describe(doing), e)
            : new SandboxException($"{doing}: {e.Message}", e);
    }

    private static unsafe bool HasEnded(Vmm vmm)
    {
        Libc.pollfd pfd = new() { fd = vmm.Process.Fd.Value, events = Libc.POLLIN };
        return Libc.poll(&pfd, 1, EndMilliseconds) > 0;
    }
}
