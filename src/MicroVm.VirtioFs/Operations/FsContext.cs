using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Dax;
using MicroVm.VirtioFs.Descriptors;
using MicroVm.VirtioFs.Events;
using MicroVm.VirtioFs.Exports;
using MicroVm.VirtioFs.Fifos;
using MicroVm.VirtioFs.Handles;
using MicroVm.VirtioFs.HostFiles;
using MicroVm.VirtioFs.Inodes;
using MicroVm.VirtioFs.Locks;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;
using MicroVm.VirtioFs.Sockets;
using MicroVm.VirtioFs.Waiting;
using static MicroVm.VirtioFs.Protocol.FuseResult;

namespace MicroVm.VirtioFs.Operations;

/// <summary>What the operations of one server share: its tables, what requests wait for, and the session.</summary>
internal sealed class FsContext : IDisposable
{
    /// <summary>
    /// Inodes that are known at once: 140 bytes each and their names, together at most 110 MB. A guest that remembers more gets
    /// ESTALE for files that nothing has open, which has its kernel look them up again.
    /// </summary>
    private const int MostInodes = 1 << 18;

    private readonly Func<int, bool> _sharesSockets;
    private volatile FsSession _session = new();

    /// <summary>Makes the tables, which are empty.</summary>
    /// <param name="budget">How many descriptors the guest may make this server hold.</param>
    /// <param name="stripsSetId">Files get no set-user-id and set-group-id bits, and no capabilities.</param>
    /// <param name="window">Where the guest may map files; borrowed.</param>
    /// <param name="sockets">The channel on which sockets are lent; taken over.</param>
    /// <exception cref="LinuxException">/proc/self/fd cannot be opened.</exception>
    public FsContext(FdBudget budget, bool stripsSetId, DaxWindow? window, SafeFd? sockets)
    {
        Budget = budget;
        StripsSetId = stripsSetId;
        Window = window;
        Exports = new ExportTable(ProcSelfFd);
        Synthetic = new SyntheticDirectories(this);
        Inodes = new InodeTable(budget, MostInodes);
        Handles = new HandleTable(budget, Inodes);
        Locks = new LockTable(ProcSelfFd, budget);
        _sharesSockets = index => Exports[index] is { SharesSockets: true };
        if (sockets is not null)
        {
            Sockets = new LentSockets(sockets);
            Inodes.OnSocketClosed(Sockets.Release);
        }
    }

    /// <summary>The directory /proc/self/fd.</summary>
    public SafeFd ProcSelfFd { get; } = ProcFd.Open();

    /// <summary>What all descriptors count against that the guest makes this server hold.</summary>
    public FdBudget Budget { get; }

    /// <summary>What the host shows.</summary>
    public ExportTable Exports { get; }

    /// <summary>The directories above the exports.</summary>
    public SyntheticDirectories Synthetic { get; }

    /// <summary>Inodes that the guest knows.</summary>
    public InodeTable Inodes { get; }

    /// <summary>Files that the guest has open.</summary>
    public HandleTable Handles { get; }

    /// <summary>Locks that the guest holds.</summary>
    public LockTable Locks { get; }

    /// <summary>Requests that wait.</summary>
    public WaitingRequests Waiting { get; } = new();

    /// <summary>What others change.</summary>
    public HostEvents Events { get; } = new();

    /// <summary>FIFOs of the host that the guest has open.</summary>
    public HostFifos Fifos { get; } = new();

    /// <summary>What was done.</summary>
    public FsCounters Counters { get; } = new();

    /// <summary>Where the guest may map files; null: nowhere.</summary>
    public DaxWindow? Window { get; }

    /// <summary>Sockets of the host for those that the guest makes; null: none are lent.</summary>
    public LentSockets? Sockets { get; }

    /// <summary>Files get no set-user-id and set-group-id bits, and no capabilities.</summary>
    public bool StripsSetId { get; }

    /// <summary>What INIT agreed on.</summary>
    public FsSession Session
    {
        get => _session;
        set => _session = value;
    }

    /// <summary><see cref="HostInode.Reopen"/> by this server's /proc/self/fd.</summary>
    public int Reopen(int fd, uint type, int flags) => HostInode.Reopen(ProcSelfFd, fd, type, flags);

    /// <summary>Whether an inode is below an export whose sockets and FIFOs are the host's.</summary>
    public bool SharesSockets(ulong node) => Inodes.Names.IsBelow(node, _sharesSockets);

    /// <summary>Lends an inode for a change: EROFS in the synthesised root and in read-only exports.</summary>
    public int PinForChange(ulong nodeId, out InodePin inode)
    {
        inode = default;
        if (Synthetic.Is(nodeId))
        {
            return Fail(Errno.EROFS);
        }

        if (!Inodes.TryPin(nodeId, out inode))
        {
            return Fail(Errno.ESTALE);
        }

        if (!Exports.RulesOf(inode.Key).ReadOnly)
        {
            return 0;
        }

        inode.Dispose();
        inode = default;
        return Fail(Errno.EROFS);
    }

    /// <summary>Takes the name that ends the request, and lends the inode that it is made, changed or removed in.</summary>
    // Safe: the name lies in the request's own buffer, with its NUL, until the next request.
    public unsafe int PinParent(FuseRequest r, int nameOffset, out byte* name, out InodePin parent)
    {
        parent = default;
        int error = r.ReadName(nameOffset, out name);
        return error != 0 ? error : PinForChange(r.NodeId, out parent);
    }

    /// <summary>A change may have copied an overlay's inode up.</summary>
    public void RefreshChanged(in InodePin inode)
    {
        if (inode.IsOverlay && DeviceMark.Stat(inode.Fd, HostInode.StatMask, out Libc.statx_t stat) == 0)
        {
            Inodes.Refresh(inode, stat);
        }
    }

    /// <summary>Counts an operation that is not carried out, and answers with ENOSYS.</summary>
    public int Unsupported(FuseOpcode opcode)
    {
        Counters.Unsupported(opcode);
        return Fail(Errno.ENOSYS);
    }

    /// <summary>Ends the guest's session: drops its inodes, files, locks and mappings. No request may be running.</summary>
    public void EndSession()
    {
        Session = Session with { IsOpen = false };
        Window?.Clear();
        Waiting.InterruptAll();
        Events.Clear(dropRequest: false);
        Locks.Clear();
        Fifos.Clear();
        Handles.Clear();
        Inodes.Clear();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        EndSession();
        Waiting.Dispose();
        Events.Dispose();
        Locks.Dispose();
        Handles.Dispose();
        Fifos.Dispose();
        Inodes.Dispose();
        Exports.Dispose();
        Sockets?.Dispose();
        ProcSelfFd.Dispose();
    }
}
