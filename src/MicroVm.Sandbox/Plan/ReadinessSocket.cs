using MicroVm.Linux.Native;

using Proto = MicroVm.Protocol.Agent;

namespace MicroVm.Sandbox.Plan;

/// <summary>The socket on which a container's processes say that they are ready, where the caller's environment asks for it, as with runc.</summary>
internal static class ReadinessSocket
{
    private const string Variable = "NOTIFY_SOCKET", PathInside = "/run/notify/notify.sock";

    // Every user of the container may write to it.
    private const uint Mode = 0x1ff;

    /// <summary>The caller's own socket; null where it has none.</summary>
    internal static string? OfCaller => Environment.GetEnvironmentVariable(Variable) is { Length: > 0 } path ? path : null;

    /// <summary>Adds the socket and its name to a container's plan.</summary>
    internal static void AddTo(Proto.ContainerSpec plan)
    {
        if (OfCaller is null)
        {
            return;
        }

        plan.Mounts.Add(new Proto.Mount
        {
            Kind = Proto.Mount.Types.Kind.Socket,
            Destination = PathInside,
            SourceIsFile = true,
            Flags = Libc.MS_BIND,
            Socket = new Proto.HostSocket { Mode = Mode, Readiness = true },
        });
        List<string> environment = ProcessEnvironment.Unique([.. plan.Process.Env, $"{Variable}={PathInside}"]);
        plan.Process.Env.Clear();
        plan.Process.Env.AddRange(environment);
    }
}
