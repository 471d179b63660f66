using MicroVm.Agent.Rootfs;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Agent.Service;

/// <summary>Mounts and unmounts in exports that propagate from the host, in the order of the calls.</summary>
internal sealed class MountChanges(AgentState agent)
{
    private Task _last = Task.CompletedTask;

    internal void Apply(ChangeMountsRequest request, TtrpcCall call)
    {
        List<uint> gone = [];
        foreach (MountChange change in request.Changes)
        {
            if (change.Socket is null)
            {
                if (change.Source.Length == 0 && agent.Sockets.Forget(change) is { } port)
                {
                    gone.Add(port);
                }
            }
            else if (Background.Attempt(() => agent.Sockets.Show(change)) is { } failure)
            {
                Boot.Log.Warn(failure.Message);
            }
        }

        // File systems answer in their time: the loop goes on meanwhile. Changes of later calls come after these.
        Task previous = _last;
        TaskCompletionSource done = new();
        _last = done.Task;
        Background.Run("mounts", () =>
        {
            previous.Wait();
            foreach (MountChange change in request.Changes)
            {
                if (Background.Attempt(() => Change(change)) is { } failure)
                {
                    agent.Loop.Post(() => Boot.Log.Warn($"mount below export {change.Export} at {change.Path}: {failure.Message}"));
                }
            }

            done.SetResult();
            agent.Loop.Post(() =>
            {
                gone.ForEach(agent.Sockets.Drop);
                call.Complete(new Empty());
            });
        });
    }

    private void Change(MountChange change)
    {
        using RootDirectory export = RootDirectory.At(agent.Setup.FileSystems.GrowingPathOf(change.FsTag, change.Export));
        using SafeFd target = export.Open(change.Path, Libc.O_PATH | Libc.O_NOFOLLOW);
        if (change.Source.Length == 0 && change.Socket is null)
        {
            Check.Result(Libc.umount2(MountCalls.PathOf(target), Libc.MNT_DETACH), "umount2");
            return;
        }

        string source = change.Socket is null ? $"{agent.Setup.FileSystems.PathOf(change.FsTag)}/{change.Source}" : agent.Setup.FileSystems.SocketPathOf(change.Socket.Port);
        using SafeFd file = SafeFd.From(Libc.open(source, Libc.O_PATH | Libc.O_NOFOLLOW | Libc.O_CLOEXEC, 0), "open", source);

        // The host asks for a socket twice.
        if (FileIdentity.Of(file) != FileIdentity.Of(target))
        {
            MountCalls.Bind(file, target, recursive: false);
        }
    }
}
