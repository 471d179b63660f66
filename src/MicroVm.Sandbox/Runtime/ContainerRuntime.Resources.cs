using System.Text.Json;
using Google.Protobuf;
using MicroVm.Linux;
using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.HostCgroups;
using MicroVm.Sandbox.Plan;
using MicroVm.Sandbox.StandIn;
using MicroVm.Sandbox.State;

namespace MicroVm.Sandbox.Runtime;

public sealed partial class ContainerRuntime
{
    private const int MiBShift = 20;

    /// <summary>Changes limits of a container, in the guest and on the host. The VM keeps its size.</summary>
    public void Update(string id, Resources change)
    {
        ArgumentNullException.ThrowIfNull(change);
        (ContainerState state, ContainerStatus status) = State(id);
        if (status == ContainerStatus.Stopped)
        {
            throw new SandboxException(RuntimeTexts.NotRunning);
        }

        string folder = _store.FolderOf(id);
        Spec spec = SpecReader.ReadBundle(folder);
        List<string> warnings = [];
        (UpdateContainerRequest request, Resources merged) = CgroupPlan.Update(id, spec.Linux?.Resources, change, warnings);
        if (change.Memory?.Limit >> MiBShift > state.VmMemoryMiB)
        {
            warnings.Add($"the memory limit is above the {state.VmMemoryMiB} MiB of the VM, which were set when the container was created");
        }

        warnings.ForEach(w => _log.Write(LogLevel.Warning, w));
        Ask(id, new ControlCall { Verb = ControlVerb.Update, Update = request.ToByteArray() });
        HostLimits.Update(new HostCgroup(state.Cgroups ?? []), status == ContainerStatus.Created ? WithoutBandwidth(merged) : merged);
        (spec.Linux ??= new Oci.Config.Linux()).Resources = merged;
        try
        {
            HostFile.Replace(Path.Combine(folder, SpecReader.FileName), JsonSerializer.SerializeToUtf8Bytes(spec, SpecJson.Default.Spec), 0b110_000_000);
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"the limits hold, but cannot be kept: {e.Message}", e);
        }
    }

    /// <summary>A container's figures, as the guest's kernel has them.</summary>
    public ContainerFigures Figures(string id)
    {
        if (State(id).Status == ContainerStatus.Stopped)
        {
            throw new SandboxException($"container with id {id} is not running");
        }

        ControlReply reply = Ask(id, new ControlCall { Verb = ControlVerb.Stats });
        return new ContainerFigures(reply.Files ?? [], reply.Interfaces ?? []);
    }

    /// <summary>Waits for the next process that was killed for want of memory in a container; false when the container ended.</summary>
    public bool WaitForOutOfMemory(string id)
    {
        try
        {
            using AgentClient agent = AgentClient.Connect(_store.VsockOf(id), TimeSpan.FromSeconds(120));
            _ = agent.GetOomEvent();
            return true;
        }
        catch (Exception e) when (e is Ttrpc.TtrpcException or LinuxException)
        {
            return false;
        }
    }

    // It holds from the start on.
    private static Resources WithoutBandwidth(Resources resources) => resources.Cpu is null
        ? resources
        : resources with { Cpu = resources.Cpu with { Quota = null, Period = null } };
}
