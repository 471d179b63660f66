using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Virtio;
using MicroVm.VirtioFs.Dax;
using MicroVm.VirtioFs.Descriptors;
using MicroVm.VirtioFs.Events;
using MicroVm.VirtioFs.Exports;
using MicroVm.VirtioFs.Fifos;
using MicroVm.VirtioFs.Locks;
using MicroVm.VirtioFs.Operations;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;
using MicroVm.VirtioFs.Waiting;

namespace MicroVm.VirtioFs;

/// <summary>
/// The FUSE server: carries out one request at a time for each thread that calls it. Everything is reached from the
/// exports' descriptors, one path component at a time, never through a symbolic link.
/// </summary>
/// <remarks>
/// An operation returns the length of the payload that it has put into the answer, or a negative errno. The answer's room is
/// checked before anything is changed, by <see cref="FuseReply.LengthOf"/>. Nothing here allocates for a request.
/// </remarks>
internal sealed class FuseServer : IDisposable
{
    /// <summary>What <see cref="Process"/> returns for a request whose answer comes later.</summary>
    public const uint Deferred = uint.MaxValue;

    /// <summary>Longest request and longest answer: the largest WRITE or READ and what belongs to it.</summary>
    private const ulong LongestRequest = FsSession.MaxWrite + 4096;

    private readonly FsContext _fs;
    private readonly ExportOperations _exports;
    private readonly LookupOperations _lookup;
    private readonly AttributeOperations _attributes;
    private readonly AttributeChangeOperations _attributeChanges;
    private readonly LinkOperations _links;
    private readonly RenameOperations _renames;
    private readonly NodeOperations _nodes;
    private readonly OpenOperations _opens;
    private readonly CreateOperations _creates;
    private readonly DataOperations _data;
    private readonly AllocationOperations _allocations;
    private readonly SyncOperations _syncs;
    private readonly DirectoryOperations _directories;
    private readonly XattrOperations _xattrs;
    private readonly IoctlOperations _ioctls;
    private readonly LockOperations _locks;
    private readonly FifoOperations _fifos;
    private readonly WaitOperations _waits;
    private readonly EventOperations _events;
    private readonly MappingOperations _mappings;
    private readonly ForgetOperations _forgets;
    private readonly SessionOperations _session;

    /// <summary>Makes a server without exports.</summary>
    /// <param name="budget">How many descriptors its guest may make it hold.</param>
    /// <param name="stripSetId">Files get no set-user-id and set-group-id bits, and no capabilities.</param>
    /// <param name="window">Where the guest may map files; borrowed.</param>
    /// <param name="sockets">The channel on which sockets are lent; taken over.</param>
    /// <exception cref="LinuxException">/proc/self/fd cannot be opened.</exception>
    public FuseServer(FdBudget budget, bool stripSetId = false, DaxWindow? window = null, SafeFd? sockets = null)
    {
        FsContext fs = _fs = new(budget, stripSetId, window, sockets);
        SetIdBits setId = new(fs);
        GuestAttributes attributes = new(fs);
        EntryLookup entries = new(fs, attributes);
        HandleOpener opener = new(fs, setId);
        FileMaker maker = new(fs, setId);
        _exports = new ExportOperations(fs, entries);
        _lookup = new LookupOperations(fs, entries, _exports);
        _attributes = new AttributeOperations(fs, attributes);
        _attributeChanges = new AttributeChangeOperations(fs, _attributes, setId);
        _links = new LinkOperations(fs, entries);
        _renames = new RenameOperations(fs);
        _nodes = new NodeOperations(fs, entries, maker, setId);
        _opens = new OpenOperations(fs, opener);
        _creates = new CreateOperations(fs, entries, maker, opener);
        _fifos = new FifoOperations(fs, opener);
        _data = new DataOperations(fs, setId, _fifos);
        _allocations = new AllocationOperations(fs, setId);
        _syncs = new SyncOperations(fs);
        _directories = new DirectoryOperations(fs, entries, attributes, opener, new RootListing(fs));
        _xattrs = new XattrOperations(fs);
        _ioctls = new IoctlOperations(fs);
        _locks = new LockOperations(fs);
        _waits = new WaitOperations(fs, _locks, _fifos);
        _events = new EventOperations(fs);
        _mappings = new MappingOperations(fs);
        _forgets = new ForgetOperations(fs);
        _session = new SessionOperations(fs);
        Upkeep = new Upkeep(fs, _mappings);
    }

    /// <summary>The guest has the file system mounted.</summary>
    public bool HasSession => _fs.Session.IsOpen;

    /// <summary>What was done.</summary>
    public FsCounters Counters => _fs.Counters;

    /// <summary>What is done between requests.</summary>
    public Upkeep Upkeep { get; }

    /// <summary>Requests that wait.</summary>
    public WaitingRequests Waiting => _fs.Waiting;

    /// <summary>What others change.</summary>
    public HostEvents Events => _fs.Events;

    /// <summary>FIFOs of the host that the guest has open.</summary>
    public HostFifos Fifos => _fs.Fifos;

    /// <summary>Inodes that the guest holds references to.</summary>
    public int InodeCount => _fs.Inodes.Count;

    /// <summary>Files that the guest has open.</summary>
    public int HandleCount => _fs.Handles.Count;

    /// <summary>How many ranges the guest has locked.</summary>
    public int LockCount => _fs.Locks.Count;

    /// <summary>See <see cref="LockTable.Releases"/>.</summary>
    public int LockReleases => _fs.Locks.Releases;

    /// <summary>Makes the calling thread able to call <see cref="Process"/>; the caller disposes of the result.</summary>
    /// <param name="mayWait">The thread goes on with <see cref="Waiting"/>.</param>
    /// <exception cref="LinuxException">The thread's credentials cannot be set up.</exception>
    public FuseRequest PrepareThread(bool mayWait = false) => new(_fs.ProcSelfFd, mayWait);

    /// <inheritdoc cref="ExportTable.TryAdd"/>
    public bool TryAddExport(VirtioFsExport export, out string? error) => _fs.Exports.TryAdd(export, out error);

    /// <inheritdoc cref="ExportOperations.Remove"/>
    public bool RemoveExport(string name, out bool found) => _exports.Remove(name, out found);

    /// <inheritdoc cref="WaitOperations.Retry"/>
    public int RetryWaiter(int index) => _waits.Retry(index);

    /// <summary>Carries out the request in <paramref name="chain"/>.</summary>
    /// <param name="request">The calling thread's own.</param>
    /// <param name="chain">Request and room for the answer.</param>
    /// <returns>Bytes written into the chain, for the used ring; or <see cref="Deferred"/>.</returns>
    // Safe: the size of a struct is asked for, nothing is followed.
    public unsafe uint Process(FuseRequest request, DescriptorChain chain)
    {
        bool wellFormed = request.TryStart(chain) && Math.Max(chain.ReadableLength, chain.WritableLength) <= LongestRequest;
        FuseOpcode opcode = request.Opcode;
        Counters.Request(opcode);
        if (opcode is FuseOpcode.FUSE_FORGET or FuseOpcode.FUSE_BATCH_FORGET or FuseOpcode.FUSE_INTERRUPT && wellFormed)
        {
            return request.Finish(DispatchWithoutReply(request, opcode));
        }

        if (!wellFormed || chain.WritableLength < (ulong)sizeof(fuse_out_header) || request.Room < (ulong)FuseReply.LengthOf(opcode))
        {
            Counters.Malformed();
            return request.Finish(-(int)Errno.EINVAL);
        }

        if (!HasSession && opcode != FuseOpcode.FUSE_INIT)
        {
            return request.Finish(-(int)Errno.EIO);
        }

        int result = Events.Watched == 0 ? Dispatch(request, opcode) : DispatchWatched(request, opcode);
        if (_fs.Window is { HasZeroPages: true } window)
        {
            window.RestoreGrown();
        }

        return result == FuseRequest.Deferred ? Deferred : request.Finish(result);
    }

    /// <inheritdoc cref="FsContext.EndSession"/>
    public void EndSession() => _fs.EndSession();

    /// <inheritdoc/>
    public void Dispose() => _fs.Dispose();

    private int Dispatch(FuseRequest r, FuseOpcode opcode) => opcode switch
    {
        FuseOpcode.FUSE_LOOKUP => _lookup.Lookup(r),
        FuseOpcode.FUSE_GETATTR => _attributes.Get(r),
        FuseOpcode.FUSE_SETATTR => _attributeChanges.Set(r),
        FuseOpcode.FUSE_READLINK => _links.ReadLink(r),
        FuseOpcode.FUSE_SYMLINK => _nodes.Symlink(r),
        FuseOpcode.FUSE_MKNOD => _nodes.MakeNode(r),
        FuseOpcode.FUSE_MKDIR => _nodes.MakeDirectory(r),
        FuseOpcode.FUSE_UNLINK => _links.Unlink(r, 0),
        FuseOpcode.FUSE_RMDIR => _links.Unlink(r, Libc.AT_REMOVEDIR),
        FuseOpcode.FUSE_RENAME => _renames.Rename(r),
        FuseOpcode.FUSE_RENAME2 => _renames.RenameWithFlags(r),
        FuseOpcode.FUSE_LINK => _links.Link(r),
        FuseOpcode.FUSE_OPEN => _opens.Open(r),
        FuseOpcode.FUSE_READ => _data.Read(r),
        FuseOpcode.FUSE_WRITE => _data.Write(r),
        FuseOpcode.FUSE_STATFS => _attributes.StatFs(r),
        FuseOpcode.FUSE_RELEASE => _opens.Release(r, directory: false),
        FuseOpcode.FUSE_FSYNC => _syncs.Sync(r, directory: false),
        FuseOpcode.FUSE_SETXATTR => _xattrs.Set(r),
        FuseOpcode.FUSE_GETXATTR => _xattrs.Get(r),
        FuseOpcode.FUSE_LISTXATTR => _xattrs.List(r),
        FuseOpcode.FUSE_REMOVEXATTR => _xattrs.Remove(r),
        FuseOpcode.FUSE_FLUSH => _opens.Flush(r),
        FuseOpcode.FUSE_INIT => _session.Initialise(r),
        FuseOpcode.FUSE_OPENDIR => _directories.OpenDirectory(r),
        FuseOpcode.FUSE_READDIR => _directories.ReadDirectory(r, plus: false),
        FuseOpcode.FUSE_READDIRPLUS => _directories.ReadDirectory(r, plus: true),
        FuseOpcode.FUSE_RELEASEDIR => _opens.Release(r, directory: true),
        FuseOpcode.FUSE_FSYNCDIR => _syncs.Sync(r, directory: true),
        FuseOpcode.FUSE_CREATE => _creates.Create(r),
        FuseOpcode.FUSE_TMPFILE => _creates.CreateUnnamed(r),
        FuseOpcode.FUSE_DESTROY => _session.Destroy(),
        FuseOpcode.FUSE_FALLOCATE => _allocations.Allocate(r),
        FuseOpcode.FUSE_LSEEK => _allocations.Seek(r),
        FuseOpcode.FUSE_COPY_FILE_RANGE => _allocations.CopyRange(r),
        FuseOpcode.FUSE_SYNCFS => _syncs.SyncFs(r),
        FuseOpcode.FUSE_STATX => _attributes.Statx(r),
        FuseOpcode.FUSE_IOCTL => _ioctls.Ioctl(r),
        FuseOpcode.FUSE_GETLK => _locks.Get(r),
        FuseOpcode.FUSE_SETLK => _locks.Set(r, wait: false),
        FuseOpcode.FUSE_SETLKW => _locks.Set(r, wait: true),
        FuseOpcode.FUSE_WATCH => _events.Watch(r),
        FuseOpcode.FUSE_EVENTS => _events.Wait(r),
        FuseOpcode.FUSE_OPEN_FIFO => _fifos.Open(r),
        FuseOpcode.FUSE_POLL => _fifos.Poll(r),
        FuseOpcode.FUSE_SETUPMAPPING => _mappings.SetUp(r),
        FuseOpcode.FUSE_REMOVEMAPPING => _mappings.Remove(r),

        // ACCESS: the kernel checks permissions itself.
        // BMAP: it falls back. What is unknown is answered the same way, as the protocol wants.
        _ => _fs.Unsupported(opcode),
    };

    private int DispatchWithoutReply(FuseRequest r, FuseOpcode opcode) => opcode switch
    {
        FuseOpcode.FUSE_FORGET => _forgets.Forget(r),
        FuseOpcode.FUSE_BATCH_FORGET => _forgets.ForgetBatch(r),
        _ => _forgets.Interrupt(r),
    };

    /// <summary>Carries out a request while something is watched: the events that it causes are not reported.</summary>
    // Safe: the buffer has room for the longest name and a NUL.
    private unsafe int DispatchWatched(FuseRequest r, FuseOpcode opcode)
    {
        uint mask = OwnChange.EventsOf(opcode);
        if (mask == 0)
        {
            return Dispatch(r, opcode);
        }

        _fs.Events.Collect();
        ulong node = opcode == FuseOpcode.FUSE_COPY_FILE_RANGE && r.TryRead(0, out fuse_copy_file_range_in copy) ? copy.nodeid_out : r.NodeId;
        bool hasNames = OwnChange.HasNames(opcode);
        byte* name = stackalloc byte[FuseNames.MaxLength + 1];
        int length = hasNames ? 0 : _fs.Inodes.Names.CopyNameOf(node, name);
        int result = Dispatch(r, opcode);
        bool two = opcode is FuseOpcode.FUSE_RENAME or FuseOpcode.FUSE_RENAME2;
        ReadOnlySpan<byte> first = hasNames ? r.NameAt(0) : new(name, length);
        _fs.Events.Collect(new OwnChange(node, mask, first, two ? r.NameAt(1) : []), hasNames);
        return result;
    }
}
