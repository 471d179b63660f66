using MicroVm.Linux;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Sandbox.Runtime;

/// <summary>A container's processes that were killed for want of memory, as the guest tells of them. Any number may watch.</summary>
public sealed class OutOfMemoryWatch : IDisposable
{
    private readonly AgentClient _agent;
    private readonly string _id;
    private ulong? _known;

    internal OutOfMemoryWatch(AgentClient agent, string id)
    {
        _agent = agent;
        _id = id;
    }

    /// <summary>Waits for the next; false when the container has ended.</summary>
    public bool Next()
    {
        try
        {
            GetOomEventRequest request = new() { ContainerId = _id };
            if (_known is { } known)
            {
                request.KnownKills = known;
            }

            _known = _agent.GetOomEvent(request).Kills;
            return true;
        }
        catch (Exception e) when (e is TtrpcException or LinuxException or ObjectDisposedException)
        {
            return false;
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _agent.Dispose();
}
