using Google.Protobuf;
using MicroVm.Json;
using MicroVm.Linux;
using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.Plan;
using MicroVm.Sandbox.Proxies;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Streams;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Sandbox.Pods;

/// <summary>The command's side of a container that joins a VM: it resolves the bundle and opens what the container is made of.</summary>
internal static class JoinClient
{
    /// <summary>Checks the bundle, and makes its plan.</summary>
    /// <param name="request">What the command was asked for.</param>
    /// <param name="spec">The bundle's configuration.</param>
    /// <param name="target">The VM.</param>
    /// <param name="log">Takes warnings.</param>
    /// <returns>The container, resolved, and its first state without processes.</returns>
    /// <exception cref="SpecException">The bundle is malformed, or asks for what is not supported.</exception>
    /// <exception cref="SandboxException">Something of the host cannot be opened.</exception>
    internal static (ResolvedContainer Container, ContainerState State) Prepare(ProxyRequest request, Spec spec, JoinTarget target, RuntimeLog log)
    {
        string rootfs = SpecValidator.Validate(spec, request.Bundle!);
        HookRunner.Check(spec.Hooks);
        request.HasTerminalFd = request.Foreground && CallerTerminal.OfStreams() is null && CallerTerminal.Exists;
        TerminalRules.Check(request, spec.Process!.Terminal ?? false);
        ResolvedContainer container = ResolvedContainer.Joining(
            spec, request.Id, request.Bundle!, rootfs, request.SystemdCgroup, w => log.Write(LogLevel.Warning, w), request.Vm!, target);
        return (container, container.State(ProcessIdentity.Current) with { Transient = request.Transient });
    }

    /// <summary>Asks the VM's process to take the container; its messages then come on the same connection.</summary>
    /// <param name="control">Folder of the control socket.</param>
    /// <param name="request">What the command was asked for.</param>
    /// <param name="prepared">Of <see cref="Prepare"/>.</param>
    /// <param name="proxy">The sandbox's end of the proxy's socket.</param>
    /// <exception cref="SandboxException">The VM's process refuses, or is gone.</exception>
    internal static LineChannel Ask(string control, ProxyRequest request, (ResolvedContainer Container, ContainerState State) prepared, SafeFd proxy)
    {
        (ResolvedContainer container, ContainerState state) = prepared;
        ContainerPlan plan = container.Plan;

        // Only this process can reach the terminal of its session.
        using SafeFd? terminal = request.HasTerminalFd ? CallerTerminal.Find() : null;
        JoinRequest join = new() { Request = request, State = state, UnifiedMount = container.Cgroup.UnifiedMount, Sockets = [.. plan.Sources.Sockets.Select(s => s.Path)] };
        join.Exports.AddRange(plan.Exports.Select(JoinExport.Of));
        using SafeFd document = MemoryFile.Create("join", JsonRecords.Write(join));
        using SafeFd configuration = MemoryFile.Create("configuration", request.Configuration);
        using SafeFd create = MemoryFile.Create("plan", new CreateContainerRequest { ContainerId = request.Id, Spec = plan.Spec }.ToByteArray());
        List<SafeFd> files = [HostStreams.Input, HostStreams.Output, HostStreams.Error, proxy, document, configuration, create];
        foreach (Export export in plan.Exports)
        {
            files.Add(export.File);
            if (export.Tree is { } tree)
            {
                files.Add(tree);
            }
        }

        files.AddRange(plan.Sources.Sockets.Select(s => s.File));
        if (terminal is not null)
        {
            files.Add(terminal);
        }

        (LineChannel channel, SafeFd socket) = ControlClient.Open(control, new ControlCall { Verb = ControlVerb.Join, Known = files.Count });
        try
        {
            JoinFiles.Send(socket, files);
            return channel;
        }
        catch
        {
            channel.Dispose();
            throw;
        }
    }
}
