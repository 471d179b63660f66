namespace MicroVm.Shim.Streams;

/// <summary>Whose streams they are, for log drivers.</summary>
/// <param name="Namespace">containerd's namespace.</param>
/// <param name="Container">The container's id.</param>
internal sealed record ProcessName(string Namespace, string Container);
