namespace MicroVm.Shim.Events;

/// <summary>A kind of event.</summary>
/// <param name="Topic">Where containerd publishes it.</param>
/// <param name="Type">Full name of its message, which is the whole of an Any's type URL here.</param>
internal sealed record EventKind(string Topic, string Type);
