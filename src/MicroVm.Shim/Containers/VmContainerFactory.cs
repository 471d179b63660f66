using MicroVm.Linux;
using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox;
using MicroVm.Sandbox.Pods;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Vm;
using MicroVm.Shim.Streams;
using MicroVm.Ttrpc;

namespace MicroVm.Shim.Containers;

/// <summary>
/// Creates the containers of a shim, which are in one VM: the first boots it, and those that are to share its namespaces or are of its pod
/// join. What fails is undone. Any thread.
/// </summary>
internal sealed class VmContainerFactory
{
    private volatile ShimSandbox? _sandbox;

    /// <summary>Creates a container, whose first process then waits to be started.</summary>
    /// <exception cref="SandboxException">It cannot be created.</exception>
    /// <exception cref="SpecException">Its configuration is malformed, or asks for what is not supported.</exception>
    internal ITaskContainer Create(ContainerRequest request)
    {
        Prerequisites.Check();
        byte[] configuration = SpecReader.ReadBundleBytes(request.Bundle);
        Spec spec = SpecReader.ParseBundle(configuration);
        string rootfs = SpecValidator.Validate(spec, request.Bundle);
        HookRunner.Check(spec.Hooks);
        ContainerStore store = new(request.Runtime.Root);
        JoinTarget? target = Target(request, spec, store);
        VmProcess init = new(new ProcessId { ContainerId = request.Id }, StdioEnds.Open(request.Stdio, new ProcessName(request.Namespace, request.Id)), request.Vm.StartTimeout);
        ContainerSetup setup = new(request, store, configuration, init);
        try
        {
            if (target is not null)
            {
                return setup.Join(spec, rootfs, _sandbox!, target);
            }

            ShimSandbox sandbox = new();
            _sandbox = sandbox;
            return setup.Boot(spec, rootfs, sandbox);
        }
        catch (Exception e)
        {
            setup.Undo();
            if (e is TtrpcException or LinuxException)
            {
                throw new SandboxException(e.Message, e);
            }

            throw;
        }
    }

    /// <summary>What is joined of this shim's VM; null when the container has a VM of its own.</summary>
    private static JoinTarget? Target(ContainerRequest request, Spec spec, ContainerStore store)
    {
        JoinTarget? target = SandboxFinder.Find(spec, store);
        if (target is null && CriAnnotations.SandboxOf(spec.Annotations) is { } sandbox && sandbox != request.Id)
        {
            throw new SandboxException($"container {request.Id} belongs to pod sandbox {sandbox}, which does not run");
        }

        return target is null || target.Member.Sandbox == ProcessIdentity.Current ? target
            : throw new SandboxException($"container {request.Id} is to join the VM of container {target.Member.Id}, which another shim serves");
    }
}
