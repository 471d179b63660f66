using System.Diagnostics;
using System.Globalization;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Sandbox.Proxies;

/// <summary>A command's side of a container's control socket.</summary>
internal static class ControlClient
{
    /// <summary>Name of the socket in the container's folder.</summary>
    internal const string SocketName = "control";

    // What the container's process needs itself, on a host at its limit.
    private static readonly TimeSpan Margin = TimeSpan.FromSeconds(5);

    // The guest runs the container's hooks of startContainer meanwhile.
    private static readonly TimeSpan Start = TimeSpan.FromSeconds(VmOptions.DefaultStartTimeoutSeconds);

    /// <summary>Makes a call. It returns in time, also when the container's process is stopped.</summary>
    /// <exception cref="SandboxException">It was refused, with the reason of the container's process; or that does not answer.</exception>
    /// <exception cref="LinuxException">Nobody listens: the container's process is gone.</exception>
    internal static ControlReply Call(string folder, ControlCall call) => Call(folder, call, PatienceFor(call));

    /// <summary>Makes a call that is answered within <paramref name="patience"/>.</summary>
    /// <exception cref="SandboxException">As for the other overload.</exception>
    /// <exception cref="LinuxException">As for the other overload.</exception>
    internal static ControlReply Call(string folder, ControlCall call, TimeSpan patience)
    {
        using LineChannel channel = new(UnixSocket.Connect(Path.Combine(folder, SocketName)));
        long began = Stopwatch.GetTimestamp();
        if (!channel.Send(call) || channel.Receive<ControlReply>(patience) is not { } reply)
        {
            throw Stopwatch.GetElapsedTime(began) >= patience
                ? new SandboxException(string.Create(
                    CultureInfo.InvariantCulture,
                    $"container {Path.GetFileName(folder)}: its process on the host gave no answer within {patience.TotalSeconds} s; kill with SIGKILL or delete --force end it"))
                : new LinuxException(Errno.ECONNRESET, "ask the container's process", folder);
        }

        return reply.Error is null ? reply : throw new SandboxException(reply.Error);
    }

    /// <summary>Makes a call after which the connection is the caller's.</summary>
    /// <returns>The connection, and its socket, which the connection owns.</returns>
    /// <exception cref="SandboxException">As for <see cref="Call(string, ControlCall)"/>; also when nobody listens.</exception>
    internal static (LineChannel Channel, SafeFd Socket) Open(string folder, ControlCall call)
    {
        try
        {
            SafeFd socket = UnixSocket.Connect(Path.Combine(folder, SocketName));
            LineChannel channel = new(socket);
            if (channel.Send(call) && channel.Receive<ControlReply>(PatienceFor(call)) is { } reply)
            {
                return reply.Error is null ? (channel, socket) : throw new SandboxException(reply.Error);
            }

            channel.Dispose();
        }
        catch (LinuxException)
        {
            // As when it does not answer.
        }

        throw new SandboxException($"the VM of container {Path.GetFileName(folder)} has ended, or its process does not answer");
    }

    private static TimeSpan PatienceFor(ControlCall call) => Margin + call.Verb switch
    {
        ControlVerb.Start => Start,
        ControlVerb.Signal when call.Signal == Libc.SIGKILL => GuestPatience.Kill,
        _ => GuestPatience.Call + GuestPatience.Vmm,
    };
}
