using MicroVm.Linux;

namespace MicroVm.Sandbox.Vm;

/// <summary>A listening Unix socket of the host that the guest may connect to, through a vsock port; owns its descriptor.</summary>
/// <param name="Port">Port of the host on the VM's vsock device.</param>
/// <param name="File">The socket's file, O_PATH: the socket itself, whatever becomes of its name.</param>
/// <param name="Path">Its path on the host, for messages.</param>
internal sealed record HostSocket(uint Port, SafeFd File, string Path) : IDisposable
{
    /// <summary>The first port that is a socket's; below it are the agent's own.</summary>
    internal const uint FirstPort = 0x10000;

    public void Dispose() => File.Dispose();
}
