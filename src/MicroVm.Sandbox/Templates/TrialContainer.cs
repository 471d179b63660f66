using MicroVm.Linux;
using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.Plan;
using MicroVm.Sandbox.Vm;
using MicroVm.Ttrpc;
using MicroVm.VmmControl;
using Process = MicroVm.Protocol.Agent.Process;

namespace MicroVm.Sandbox.Templates;

/// <summary>
/// Runs a container in a VM that is about to be saved, and takes it out again: what agent and kernel do at their first container only is
/// done when the VM is restored. It has its own namespaces and cgroup, which go with it; its root file system is unmounted.
/// </summary>
internal static class TrialContainer
{
    private const string Id = "trial";
    private const int UnmountMilliseconds = 5000;
    private const int PollMilliseconds = 2;

    /// <summary>Runs the container, in a folder that does not exist and is not removed.</summary>
    /// <exception cref="SandboxException">The VM does not run it as it should.</exception>
    internal static void Run(Vmm vmm, Guest guest, string vsock, string folder, TimeSpan timeout)
    {
        try
        {
            (Spec spec, string rootfs) = TrialBundle.Make(folder);
            using ContainerPlan plan = PlanBuilder.Build(spec, Id, folder, rootfs, []);
            foreach (Export export in plan.Exports)
            {
                vmm.Control.AddExport(export, FsCache.Exclusive);
            }

            Run(guest, vsock, plan.Spec, timeout);
            _ = guest.Call("unmount the trial container's files", agent => agent.PrepareToSave());
            AwaitUnmount(vmm);
            foreach (Export export in plan.Exports)
            {
                vmm.Control.RemoveExport(export.Name);
            }
        }
        catch (Exception e) when (e is SpecException or LinuxException or TtrpcException or SandboxException)
        {
            throw new SandboxException($"the trial container of the template: {e.Message}", e);
        }
    }

    private static void Run(Guest guest, string vsock, ContainerSpec spec, TimeSpan timeout)
    {
        using SafeFd input = HybridVsock.Connect(vsock, AgentClient.StreamPort, timeout, out uint inputPort);
        using SafeFd output = HybridVsock.Connect(vsock, AgentClient.StreamPort, timeout, out uint outputPort);
        CreateContainerRequest create = new()
        {
            ContainerId = Id,
            Spec = spec,
            Stdio = new StdioPorts { Stdin = inputPort, Stdout = outputPort, Stderr = outputPort },
        };
        _ = guest.Call("create", agent => agent.CreateContainer(create, timeout));
        _ = guest.Call("start", agent => agent.StartContainer(Id, timeout));
        WaitProcessResponse end = guest.Call("wait", agent => agent.WaitProcess(new ProcessId { ContainerId = Id }, timeout));
        if (end.ExitStatus != 0)
        {
            throw new SandboxException($"its process ended with status {end.ExitStatus}");
        }

        _ = guest.Call("remove", agent => agent.RemoveContainer(new RemoveContainerRequest { ContainerId = Id }, timeout));
    }

    /// <summary>The last mount of the file system goes with the thread that set the container up, soon after the container.</summary>
    private static void AwaitUnmount(Vmm vmm)
    {
        long deadline = Environment.TickCount64 + UnmountMilliseconds;
        while (!vmm.Control.ReadCounters().Any(c => c.Key.EndsWith(".destroy", StringComparison.Ordinal) && c.Value > 0))
        {
            if (Environment.TickCount64 > deadline)
            {
                throw new SandboxException("its files are still mounted");
            }

            Thread.Sleep(PollMilliseconds);
        }
    }
}
