using MicroVm.Linux.Native;
using MicroVm.Sandbox.Proxies;
using MicroVm.Sandbox.State;

namespace MicroVm.Sandbox.Runtime;

/// <summary>Ends the processes on the host that a container consists of.</summary>
internal sealed class ContainerTermination(RuntimeContext runtime)
{
    private const int PollMilliseconds = 10;
    private static readonly TimeSpan EndTimeout = TimeSpan.FromSeconds(10);

    /// <summary>Ends a container, and its VM unless other containers share it. Waits ten seconds at most.</summary>
    /// <exception cref="SandboxException">A process does not end.</exception>
    internal void End(ContainerState state)
    {
        // One that was being created may have got its VMM since.
        state = runtime.Store.Find(state.Id) is { } last && last.Init == state.Init ? last : state;
        bool alone = runtime.Store.Companions(state).Count == 0 || !EndOne(state);
        List<ProcessIdentity> processes = [.. ExecRecords.Alive(runtime.Store.FolderOf(state.Id)), state.Init];
        if (alone)
        {
            // The proxy last: it ends with the sandbox process.
            processes.InsertRange(0, new[] { state.Vmm, state.Sandbox }.OfType<ProcessIdentity>());
        }

        processes.ForEach(p => p.Signal(Libc.SIGKILL));
        long deadline = Environment.TickCount64 + (long)EndTimeout.TotalMilliseconds;
        foreach (ProcessIdentity process in processes)
        {
            if (!process.WaitForEnd(TimeSpan.FromMilliseconds(Math.Max(0, deadline - Environment.TickCount64))))
            {
                throw new SandboxException($"container {state.Id}: process {process.Pid} does not end after SIGKILL");
            }
        }
    }

    /// <summary>Ends one of several containers of a VM: the sandbox process ends it when its proxy is gone, and says so in its state.</summary>
    /// <returns>False when it did not in time: then only the end of the VM ends the container.</returns>
    private bool EndOne(ContainerState state)
    {
        state.Init.Signal(Libc.SIGKILL);
        long deadline = Environment.TickCount64 + (long)EndTimeout.TotalMilliseconds;
        while (Environment.TickCount64 < deadline)
        {
            if (runtime.Store.Find(state.Id) is not { } now || now.Init != state.Init || now.Status == ContainerStatus.Stopped || !state.Sandbox!.IsAlive())
            {
                return true;
            }

            Thread.Sleep(PollMilliseconds);
        }

        runtime.Log.Write(LogLevel.Warning, $"container {state.Id} does not end: its VM is ended, and with it the VM's other containers");
        return false;
    }
}
