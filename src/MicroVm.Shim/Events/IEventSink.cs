using Google.Protobuf;

namespace MicroVm.Shim.Events;

/// <summary>Takes events, in the order in which containerd is to see them.</summary>
internal interface IEventSink
{
    /// <summary>Takes an event; never waits. Any thread.</summary>
    void Publish(EventKind kind, IMessage message);
}
