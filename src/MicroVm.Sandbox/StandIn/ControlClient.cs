using MicroVm.Linux;

namespace MicroVm.Sandbox.StandIn;

/// <summary>A command's side of a stand-in's control socket.</summary>
internal static class ControlClient
{
    /// <summary>Name of the socket in the container's folder.</summary>
    internal const string SocketName = "control";

    // Longer than what the stand-in itself grants the guest.
    private static readonly TimeSpan Timeout = TimeSpan.FromSeconds(180);

    /// <summary>Makes a call.</summary>
    /// <exception cref="SandboxException">It was refused; the message is the stand-in's.</exception>
    /// <exception cref="LinuxException">Nobody listens: the stand-in is gone.</exception>
    internal static ControlReply Call(string folder, ControlCall call)
    {
        using LineChannel channel = new(UnixSocket.Connect(Path.Combine(folder, SocketName)));
        if (!channel.Send(call)
            || channel.Receive<ControlReply>(Timeout) is not { } reply)
        {
            throw new LinuxException(Errno.ECONNRESET, "ask the container's process", folder);
        }

        return reply.Error is null ? reply : throw new SandboxException(reply.Error);
    }
}
