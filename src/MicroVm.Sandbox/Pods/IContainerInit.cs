using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Sandbox.Pods;

/// <summary>The host's side of a container's first process: where its streams go is for the front to know.</summary>
internal interface IContainerInit
{
    /// <summary>Connects the streams, before the process is made.</summary>
    /// <param name="vsockPath">The VMM's vsock socket.</param>
    /// <param name="process">The process, to which a terminal's size may be added.</param>
    /// <returns>The streams' ports, for the agent.</returns>
    /// <exception cref="SandboxException">The terminal cannot be had.</exception>
    /// <exception cref="TtrpcException">The agent does not take streams.</exception>
    StdioPorts Connect(string vsockPath, Process process);

    /// <summary>The process is there: what is copied and signalled goes to it from now on.</summary>
    void Begin(AgentClient agent);

    /// <summary>Tells the guest the terminal's size, before the process runs.</summary>
    void FollowTerminal();
}
