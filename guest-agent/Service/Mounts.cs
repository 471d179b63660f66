using MicroVm.Agent.Rootfs;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Agent.Service;

public sealed partial class AgentService
{
    /// <inheritdoc/>
    protected override void ChangeMounts(ChangeMountsRequest request, TtrpcCall call)
    {
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(call);
        foreach (MountChange change in request.Changes.Where(c => c.Socket is not null))
        {
            if (Attempt(() => _sockets.Need(change.Socket)) is { } failure)
            {
                Boot.Log.Warn(failure.Message);
            }
        }

        // File systems answer in their time: the loop goes on meanwhile. Changes of later calls come after these.
        Task previous = _mountChanges;
        TaskCompletionSource done = new();
        _mountChanges = done.Task;
        RunThread("mounts", () =>
        {
            previous.Wait();
            foreach (MountChange change in request.Changes)
            {
                if (Attempt(() => Change(change)) is { } failure)
                {
                    _loop.Post(() => Boot.Log.Warn($"mount below export {change.Export} at {change.Path}: {failure.Message}"));
                }
            }

            done.SetResult();
            _loop.Post(() => call.Complete(new Empty()));
        });
    }

    private void Change(MountChange change)
    {
        using RootDirectory export = RootDirectory.At(_context.FileSystems.GrowingPathOf(change.FsTag, change.Export));
        using SafeFd target = export.Open(change.Path, Libc.O_PATH | Libc.O_NOFOLLOW);
        if (change.Source.Length == 0 && change.Socket is null)
        {
            Check.Result(Libc.umount2(MountCalls.PathOf(target), Libc.MNT_DETACH), "umount2");
            return;
        }

        string source = change.Socket is null ? $"{_context.FileSystems.PathOf(change.FsTag)}/{change.Source}" : _context.FileSystems.SocketPathOf(change.Socket.Port);
        using SafeFd file = SafeFd.From(Libc.open(source, Libc.O_PATH | Libc.O_NOFOLLOW | Libc.O_CLOEXEC, 0), "open", source);
        MountCalls.Bind(file, target, recursive: false);
    }
}
