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

    /// <summary>Watches for a container's processes that are killed for want of memory, from now on.</summary>
    /// <exception cref="SandboxException">The container has ended.</exception>
    public OutOfMemoryWatch WatchOutOfMemory(string id)
    {
        try
        {
            return new OutOfMemoryWatch(AgentClient.Connect(_store.VsockOf(id), TimeSpan.FromSeconds(120)), id);
        }
        catch (Exception e) when (e is Ttrpc.TtrpcException or LinuxException)
        {
            throw new SandboxException($"container with id {id} is not running", e);
        }
    }

    // It holds from the start on.
    private static Resources WithoutBandwidth(Resources resources) => resources.Cpu is null
        ? resources
        : resources with { Cpu = resources.Cpu with { Quota = null, Period = null } };
}
