using System.Runtime.CompilerServices;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Virtio;
using MicroVm.Vmm.Fs.Dax;
using MicroVm.Vmm.Fs.Protocol;

namespace MicroVm.Vmm.Fs;

/// <summary>
/// The FUSE server: carries out one request at a time for each thread that calls it. Everything is reached from the
/// exports' descriptors, one path component at a time, never through a symbolic link.
/// </summary>
/// <remarks>
/// A handler returns the length of the payload that it has put into the answer, or a negative errno. Handlers check the
/// answer's room before they change anything, by <see cref="PayloadLength"/>. Nothing here allocates for a request.
/// </remarks>
internal sealed unsafe partial class FuseServer : IDisposable
{
    /// <summary>What <see cref="Process"/> gives for a request whose answer comes later.</summary>
    public const uint Deferred = uint.MaxValue;

    private const int WaitForRequestsMilliseconds = 5000;

    /// <summary>Longest request and longest answer: the largest WRITE or READ and what belongs to it.</summary>
    private const ulong LongestRequest = MaxWrite + 4096;

    /// <summary>
    /// Inodes that are known at once: 140 bytes each and their names, together at most 110 MB. A guest that remembers more gets
    /// ESTALE for files that nothing has open, which has its kernel look them up again.
    /// </summary>
    private const int MostInodes = 1 << 18;

    private readonly SafeFd _procSelfFd = ProcFd.Open();
    private readonly FdBudget _budget;
    private readonly ExportTable _exports;
    private readonly InodeTable _inodes;
    private readonly HandleTable _handles;
    private readonly LockTable _locks;
    private readonly LentSockets? _lentSockets;
    private readonly Func<int, bool> _sharesSockets;
    private readonly bool _stripSetId;
    private volatile bool _initialised;

    /// <summary>Makes a server without exports.</summary>
    /// <param name="budget">How many descriptors its guest may make it hold.</param>
    /// <exception cref="LinuxException">/proc/self/fd cannot be opened.</exception>
    /// <param name="stripSetId">Set-user-id and set-group-id bits of files, and capabilities of files, are not to be had.</param>
    /// <param name="window">Where the guest may map files; borrowed.</param>
    /// <param name="sockets">The channel on which sockets are lent; taken over.</param>
    public FuseServer(FdBudget budget, bool stripSetId = false, DaxWindow? window = null, SafeFd? sockets = null)
    {
        _window = window;
        _stripSetId = stripSetId;
        _budget = budget;
        _exports = new ExportTable(_procSelfFd);
        _inodes = new InodeTable(budget, MostInodes);
        _handles = new HandleTable(budget, _inodes);
        _locks = new LockTable(_procSelfFd, budget);
        _lentSockets = sockets is null ? null : new LentSockets(sockets);
        _sharesSockets = index => _exports[index] is { SharesSockets: true };
        if (_lentSockets is not null)
        {
            _inodes.OnSocketClosed(_lentSockets.Release);
        }
    }

    /// <summary>The guest has the file system mounted.</summary>
    public bool HasSession => _initialised;

    /// <summary>What was done.</summary>
    public FsCounters Counters { get; } = new();

    /// <summary>Inodes that the guest holds references to.</summary>
    public int InodeCount => _inodes.Count;

    /// <summary>Files that the guest has open.</summary>
    public int HandleCount => _handles.Count;

    /// <summary>
    /// Closes files' descriptors that were not used since the last call, so that the host's removed files are freed.
    /// </summary>
    /// <returns>There are some left for the next call; otherwise <see cref="OnIdleFiles"/> tells of the next.</returns>
    public bool CloseIdleFiles()
    {
        bool left = _inodes.CloseIdleFiles();
        if (_window is { MappedCount: > 0 })
        {
            _window.UnmapRemoved(node => !_inodes.IsOpen(node));
        }

        return left;
    }

    /// <summary>Has <paramref name="notify"/> called when files have descriptors that <see cref="CloseIdleFiles"/> may close.</summary>
    public void OnIdleFiles(Action? notify)
    {
        _onMapped = notify;
        _inodes.OnIdleFiles(notify);
    }

    /// <summary>Inodes that have a descriptor although the guest has no handle on them.</summary>
    public int IdleCount => _inodes.IdleCount;

    /// <summary>Makes the calling thread able to call <see cref="Process"/>; the caller disposes of the result.</summary>
    /// <param name="mayWait">The thread goes on with <see cref="Waiters"/>.</param>
    /// <exception cref="LinuxException">The thread's credentials cannot be set up.</exception>
    public FuseRequest PrepareThread(bool mayWait = false) => new(_procSelfFd, mayWait);

    /// <summary>Adds an export; see <see cref="ExportTable.TryAdd"/>.</summary>
    public bool TryAddExport(VirtioFsExport export, out string? error) => _exports.TryAdd(export, out error);

    /// <summary>Removes an export and closes every descriptor below it that no other export leads to.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="found">There was one.</param>
    /// <returns>False when a request that uses it went on for seconds; its descriptors are closed when that ends.</returns>
    public bool RemoveExport(string name, out bool found)
    {
        Export? export = _exports.Remove(name);
        found = export is not null;
        if (export is null)
        {
            return true;
        }

        export.Fd.Dispose();
        _inodes.RemoveExport(export.Index, FindExportOf);
        _locks.CloseUnreachable(_inodes);
        _window?.UnmapWhere(node => !_inodes.IsReachable(node));
        bool inodes = _inodes.CloseUnreachable(WaitForRequestsMilliseconds);
        return _handles.CloseUnreachable(WaitForRequestsMilliseconds) && inodes;
    }

    /// <summary>Carries out the request in <paramref name="chain"/>.</summary>
    /// <param name="request">The calling thread's own.</param>
    /// <param name="chain">Request and room for the answer.</param>
    /// <returns>Bytes written into the chain, for the used ring; or <see cref="Deferred"/>.</returns>
    public uint Process(FuseRequest request, DescriptorChain chain)
    {
        bool wellFormed = request.TryStart(chain) && Math.Max(chain.ReadableLength, chain.WritableLength) <= LongestRequest;
        FuseOpcode opcode = request.Opcode;
        Counters.Request(opcode);
        if (opcode is FuseOpcode.FUSE_FORGET or FuseOpcode.FUSE_BATCH_FORGET or FuseOpcode.FUSE_INTERRUPT && wellFormed)
        {
            return request.Finish(WithoutReply(request, opcode));
        }

        if (!wellFormed || chain.WritableLength < (ulong)sizeof(fuse_out_header) || request.Room < (ulong)PayloadLength(opcode))
        {
            Counters.Malformed();
            return request.Finish(-(int)Errno.EINVAL);
        }

        if (!_initialised && opcode != FuseOpcode.FUSE_INIT)
        {
            return request.Finish(-(int)Errno.EIO);
        }

        int result = Events.Watched == 0 ? Dispatch(request, opcode) : DispatchWatched(request, opcode);
        if (_window is { HasZeroPages: true })
        {
            _window.RestoreGrown();
        }

        return result == FuseRequest.Deferred ? Deferred : request.Finish(result);
    }

    /// <summary>Ends the guest's session: drops its inodes and files. No request may be running.</summary>
    public void EndSession()
    {
        _initialised = false;
        _window?.Clear();
        Waiters.InterruptAll();
        Events.Clear(dropRequest: false);
        _locks.Clear();
        Fifos.Clear();
        _handles.Clear();
        _inodes.Clear();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        EndSession();
        Waiters.Dispose();
        Events.Dispose();
        _locks.Dispose();
        _handles.Dispose();
        Fifos.Dispose();
        _inodes.Dispose();
        _exports.Dispose();
        _lentSockets?.Dispose();
        _procSelfFd.Dispose();
    }

    /// <summary>Length of the struct that an operation answers with, when it has a fixed one.</summary>
    private static int PayloadLength(FuseOpcode opcode) => opcode switch
    {
        FuseOpcode.FUSE_LOOKUP or FuseOpcode.FUSE_SYMLINK or FuseOpcode.FUSE_MKNOD or FuseOpcode.FUSE_MKDIR
            or FuseOpcode.FUSE_LINK => sizeof(fuse_entry_out),
        FuseOpcode.FUSE_CREATE or FuseOpcode.FUSE_TMPFILE => sizeof(fuse_entry_out) + sizeof(fuse_open_out),
        FuseOpcode.FUSE_GETATTR or FuseOpcode.FUSE_SETATTR => sizeof(fuse_attr_out),
        FuseOpcode.FUSE_OPEN or FuseOpcode.FUSE_OPENDIR or FuseOpcode.FUSE_OPEN_FIFO => sizeof(fuse_open_out),
        FuseOpcode.FUSE_POLL => sizeof(fuse_poll_out),
        FuseOpcode.FUSE_WRITE or FuseOpcode.FUSE_COPY_FILE_RANGE => sizeof(fuse_write_out),
        FuseOpcode.FUSE_STATFS => sizeof(fuse_statfs_out),
        FuseOpcode.FUSE_LSEEK => sizeof(fuse_lseek_out),
        FuseOpcode.FUSE_STATX => sizeof(fuse_statx_out),
        FuseOpcode.FUSE_GETLK => sizeof(fuse_lk_out),
        FuseOpcode.FUSE_IOCTL => sizeof(fuse_ioctl_out),
        FuseOpcode.FUSE_INIT => Fuse.FUSE_COMPAT_INIT_OUT_SIZE,
        _ => 0,
    };

    private static int Fail(Errno errno) => -(int)errno;

    /// <summary>The last system call's error, to be answered with.</summary>
    private static int Failed() => -(int)Check.LastErrno;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static int Result(nint result) => result < 0 ? Failed() : 0;

    private int Dispatch(FuseRequest r, FuseOpcode opcode) => opcode switch
    {
        FuseOpcode.FUSE_LOOKUP => Lookup(r),
        FuseOpcode.FUSE_GETATTR => GetAttributes(r),
        FuseOpcode.FUSE_SETATTR => SetAttributes(r),
        FuseOpcode.FUSE_READLINK => ReadLink(r),
        FuseOpcode.FUSE_SYMLINK => Symlink(r),
        FuseOpcode.FUSE_MKNOD => MakeNode(r),
        FuseOpcode.FUSE_MKDIR => MakeDirectory(r),
        FuseOpcode.FUSE_UNLINK => Unlink(r, 0),
        FuseOpcode.FUSE_RMDIR => Unlink(r, Libc.AT_REMOVEDIR),
        FuseOpcode.FUSE_RENAME => Rename(r),
        FuseOpcode.FUSE_RENAME2 => RenameWithFlags(r),
        FuseOpcode.FUSE_LINK => Link(r),
        FuseOpcode.FUSE_OPEN => Open(r),
        FuseOpcode.FUSE_READ => Read(r),
        FuseOpcode.FUSE_WRITE => Write(r),
        FuseOpcode.FUSE_STATFS => StatFs(r),
        FuseOpcode.FUSE_RELEASE => Release(r, directory: false),
        FuseOpcode.FUSE_FSYNC => Sync(r, directory: false),
        FuseOpcode.FUSE_SETXATTR => SetXattr(r),
        FuseOpcode.FUSE_GETXATTR => GetXattr(r),
        FuseOpcode.FUSE_LISTXATTR => ListXattr(r),
        FuseOpcode.FUSE_REMOVEXATTR => RemoveXattr(r),
        FuseOpcode.FUSE_FLUSH => Flush(r),
        FuseOpcode.FUSE_INIT => Initialise(r),
        FuseOpcode.FUSE_OPENDIR => OpenDirectory(r),
        FuseOpcode.FUSE_READDIR => ReadDirectory(r, plus: false),
        FuseOpcode.FUSE_READDIRPLUS => ReadDirectory(r, plus: true),
        FuseOpcode.FUSE_RELEASEDIR => Release(r, directory: true),
        FuseOpcode.FUSE_FSYNCDIR => Sync(r, directory: true),
        FuseOpcode.FUSE_CREATE => Create(r),
        FuseOpcode.FUSE_TMPFILE => CreateUnnamed(r),
        FuseOpcode.FUSE_DESTROY => Destroy(),
        FuseOpcode.FUSE_FALLOCATE => Allocate(r),
        FuseOpcode.FUSE_LSEEK => Seek(r),
        FuseOpcode.FUSE_COPY_FILE_RANGE => CopyRange(r),
        FuseOpcode.FUSE_SYNCFS => SyncFs(r),
        FuseOpcode.FUSE_STATX => Statx(r),
        FuseOpcode.FUSE_IOCTL => Ioctl(r),
        FuseOpcode.FUSE_GETLK => GetLock(r),
        FuseOpcode.FUSE_SETLK => SetLock(r, wait: false),
        FuseOpcode.FUSE_SETLKW => SetLock(r, wait: true),
        FuseOpcode.FUSE_WATCH => Watch(r),
        FuseOpcode.FUSE_EVENTS => WaitForEvents(r),
        FuseOpcode.FUSE_OPEN_FIFO => OpenFifo(r),
        FuseOpcode.FUSE_POLL => Poll(r),
        FuseOpcode.FUSE_SETUPMAPPING => SetUpMapping(r),
        FuseOpcode.FUSE_REMOVEMAPPING => RemoveMapping(r),

        // ACCESS: the kernel checks permissions itself.
        // BMAP: it falls back. What is unknown is answered the same way, as the protocol wants.
        _ => Unsupported(opcode),
    };

    private int Unsupported(FuseOpcode opcode)
    {
        Counters.Unsupported(opcode);
        return Fail(Errno.ENOSYS);
    }

    private int WithoutReply(FuseRequest r, FuseOpcode opcode)
    {
        if (opcode == FuseOpcode.FUSE_FORGET)
        {
            if (r.TryRead(0, out fuse_forget_in forget))
            {
                _inodes.Forget(r.NodeId, forget.nlookup);
            }
        }
        else if (opcode == FuseOpcode.FUSE_BATCH_FORGET && r.TryRead(0, out fuse_batch_forget_in batch))
        {
            ForgetBatch(r, batch.count);
        }

        else if (opcode == FuseOpcode.FUSE_INTERRUPT && r.TryRead(0, out fuse_interrupt_in interrupt))
        {
            Waiters.Interrupt(interrupt.unique);
        }

        return FuseRequest.NoReply;
    }

    /// <summary>The count is the guest's word; the request's length is what there is. Read in blocks: each looks for its place anew.</summary>
    private void ForgetBatch(FuseRequest r, uint count)
    {
        ulong offset = (ulong)sizeof(fuse_batch_forget_in);
        while (count > 0 && !r.IsStopping)
        {
            const int Block = FuseRequest.ScratchLength / 16;
            int length = r.Read(offset, r.Scratch, (int)Math.Min(count, Block) * sizeof(fuse_forget_one));
            fuse_forget_one* records = (fuse_forget_one*)r.Scratch;
            int complete = length / sizeof(fuse_forget_one);
            if (complete == 0)
            {
                return;
            }

            for (int i = 0; i < complete; i++)
            {
                _inodes.Forget(records[i].nodeid, records[i].nlookup);
            }

            count -= (uint)complete;
            offset += (ulong)length;
        }
    }

    private int Destroy()
    {
        EndSession();
        return 0;
    }

    /// <summary>The mode that a file may have here.</summary>
    /// <param name="mode">What the guest asks for.</param>
    /// <param name="type">S_IF*: set-group-id of a directory gives its files a group, and nobody a right.</param>
    private uint AllowedMode(uint mode, uint type) =>
        _stripSetId && type == Libc.S_IFREG ? mode & ~(Libc.S_ISUID | Libc.S_ISGID) : mode;
}
