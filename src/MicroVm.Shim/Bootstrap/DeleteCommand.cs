using Google.Protobuf;
using Google.Protobuf.WellKnownTypes;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Oci;
using MicroVm.Sandbox;
using MicroVm.Sandbox.Runtime;
using MicroVm.Sandbox.State;
using MicroVm.Shim.Api;

namespace MicroVm.Shim.Bootstrap;

/// <summary>
/// <c>delete</c>: what containerd runs once a shim is gone. Ends the VM where it has not ended with its shim, removes cgroup, state and
/// socket, and prints a DeleteResponse. Nothing to remove is no failure: containerd runs it after an ordinary end, too.
/// </summary>
internal static class DeleteCommand
{
    private const uint Killed = 128 + Libc.SIGKILL;

    /// <summary>Runs the command.</summary>
    /// <exception cref="SandboxException">A process does not end, or the state cannot be removed.</exception>
    internal static int Run(ShimArguments arguments)
    {
        RuntimeOptions options = ShimFolders.Options(arguments.Namespace, arguments.Debug);
        int pid = 0;

        // Not made for the sake of looking into it.
        if (Directory.Exists(options.Root))
        {
            using RuntimeLog log = RuntimeLog.Open(null, json: false, options.Debug);
            pid = new ContainerStore(options.Root).Find(arguments.Id)?.Vmm?.Pid ?? 0;
            new ContainerRuntime(options, log).Delete(arguments.Id, force: true);
        }

        RemoveSocket(arguments);
        DeleteResponse response = new() { Pid = (uint)pid, ExitStatus = Killed, ExitedAt = Timestamp.FromDateTime(DateTime.UtcNow) };
        StandardOutput.Write(response.ToByteArray());
        return 0;
    }

    /// <summary>Of the shim that is gone; one that a later container of the same id has is served, and stays.</summary>
    private static void RemoveSocket(ShimArguments arguments)
    {
        ShimSocket socket = ShimSocket.Of(arguments.Address, arguments.Namespace, arguments.Id);
        if (!socket.IsServed())
        {
            socket.Remove();
        }
    }
}
