namespace MicroVm.Protocol.Agent;

/// <summary>The request of calls that concern a container and say nothing else.</summary>
public sealed partial class ContainerId
{
    /// <summary>The request for the container with the id <paramref name="id"/>.</summary>
    public static ContainerId FromString(string id) => new() { ContainerId_ = id };

    /// <inheritdoc cref="FromString"/>
    public static implicit operator ContainerId(string id) => FromString(id);
}
