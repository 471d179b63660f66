using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Fs.Protocol;

namespace MicroVm.Vmm.Fs;

/// <content>
/// OPEN_FIFO of this project's guest kernel (kernel-config/patches), and POLL: FIFOs of exports that share sockets are the host's, so that
/// their ends may be in different VMs. No request waits for data or room; an open(2) that waits for the other end is kept aside.
/// </content>
internal sealed unsafe partial class FuseServer
{
    /// <summary>Bit 59 of INIT's flags: the guest's kernel knows <see cref="FifoOfHost"/>.</summary>
    public const uint HostFifosFlag = 1u << 27;

    /// <summary>Bit 29 of an inode's flags, FUSE_ATTR_FIFO of the guest's kernel: it opens, reads and writes the FIFO here.</summary>
    public const uint FifoOfHost = 1u << 29;

    private volatile bool _opensFifos;

    /// <summary>FIFOs that the guest has open here.</summary>
    public HostFifos Fifos { get; } = new();

    private uint FifoFlags(ulong node, uint mode) =>
        _opensFifos && (mode & Libc.S_IFMT) == Libc.S_IFIFO && _inodes.IsBelow(node, _sharesSockets) ? FifoOfHost : 0;

    private int OpenFifo(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_open_in open) || !_opensFifos)
        {
            return Fail(Errno.EINVAL);
        }

        uint flags = open.flags & (Libc.O_ACCMODE | Libc.O_NONBLOCK);
        LockRequest request = LockRequest.ForFifo(r.NodeId, flags);
        int error = TryOpenFifo(ref request);
        if (error == Fail(Errno.EAGAIN))
        {
            error = !r.MayWait ? Fail(Errno.ENFILE) : Waiters.Add(request, r.Header.unique, r.Chain, blocker: 0);
            if (error == 0)
            {
                return FuseRequest.Deferred;
            }

            GiveUpFifo(request);
            return error == Fail(Errno.ENOLCK) ? Fail(Errno.ENFILE) : error;
        }

        return error != 0 ? error : r.Reply(new fuse_open_out { fh = request.Handle });
    }

    /// <summary>
    /// Opens a FIFO, or looks once more whether the other end has come. While it waits, a reader has its handle already, so that a writer
    /// finds it; a writer has none, for it would be an end to the readers if it went.
    /// </summary>
    /// <returns>0; -EAGAIN: it waits for the other end; or another negative errno.</returns>
    private int TryOpenFifo(ref LockRequest request)
    {
        if (request.Handle == 0)
        {
            int error = OpenFifoHandle(request.Node, request.FifoFlags, out ulong handle);
            if (error != 0)
            {
                return error == Fail(Errno.ENXIO) && request.MayWaitForFifo ? Fail(Errno.EAGAIN) : error;
            }

            request = request with { Handle = handle };
            _locks.NoteRelease(); // who waits in this VM may have waited for this end
        }

        if ((request.FifoFlags & Libc.O_ACCMODE) != Libc.O_RDONLY || !request.MayWaitForFifo)
        {
            return 0;
        }

        if (!_handles.TryPin(request.Handle, request.Node, HandleKind.Fifo, out HandlePin pin))
        {
            GiveUpFifo(request); // its export was removed
            request = request with { Handle = 0 };
            return Fail(Errno.ESTALE);
        }

        using HandlePin pinned = pin;
        return Fifos.HasHadWriter(pin.Fd) ? 0 : Fail(Errno.EAGAIN);
    }

    private int OpenFifoHandle(ulong node, uint flags, out ulong handle)
    {
        handle = 0;
        if (!_inodes.TryPin(node, out InodePin inode))
        {
            return Fail(Errno.ESTALE);
        }

        using InodePin pinned = inode;
        if (inode.FileType != Libc.S_IFIFO || !_inodes.IsBelow(node, _sharesSockets))
        {
            return Fail(Errno.EINVAL);
        }

        if (!_handles.TryReserve())
        {
            return Fail(Errno.ENFILE);
        }

        byte* link = stackalloc byte[ProcFd.NameLength];
        ProcFd.Format(inode.Fd, link);
        int access = (int)(flags & Libc.O_ACCMODE);
        int fd = Libc.openat(_procSelfFd.Value, link, access | Libc.O_NONBLOCK | Libc.O_CLOEXEC, 0);
        if (fd < 0)
        {
            int error = Failed();
            _handles.Release();
            return error;
        }

        int added = AddHandle(inode, HandleKind.Fifo, fd, access, out fuse_open_out reply);
        if (added == 0 && !Fifos.TryAdd(reply.fh, fd))
        {
            _ = _handles.Remove(reply.fh, node, directory: false);
            added = Fail(Errno.ENFILE);
        }

        handle = added == 0 ? reply.fh : 0;
        return added;
    }

    /// <summary>Closes what an open(2) that is interrupted has got so far.</summary>
    private void GiveUpFifo(in LockRequest request)
    {
        if (request.Handle != 0)
        {
            Fifos.Remove(request.Handle);
            _ = _handles.Remove(request.Handle, request.Node, directory: false);
        }
    }

    private int ReadFifo(FuseRequest r, in fuse_read_in read)
    {
        if (!_handles.TryPin(read.fh, r.NodeId, HandleKind.Fifo, out HandlePin handle))
        {
            return Fail(Errno.EBADF);
        }

        using HandlePin pinned = handle;
        int count = r.SlicePayload(0, read.size);
        nint length;
        do
        {
            length = Libc.readv(handle.Fd, r.Vectors, count);
        }
        while (length < 0 && Check.LastErrno == Errno.EINTR);

        if (length < 0)
        {
            return Failed();
        }

        Counters.BytesRead(length);
        return (int)length;
    }

    /// <summary>One system call, so that what pipe(7) says of PIPE_BUF holds.</summary>
    private int WriteFifo(FuseRequest r, in fuse_write_in write)
    {
        if (!_handles.TryPin(write.fh, r.NodeId, HandleKind.Fifo, out HandlePin handle))
        {
            return Fail(Errno.EBADF);
        }

        using HandlePin pinned = handle;
        int count = r.SliceArguments((ulong)sizeof(fuse_write_in), write.size);
        nint length;
        do
        {
            length = Libc.writev(handle.Fd, r.Vectors, count);
        }
        while (length < 0 && Check.LastErrno == Errno.EINTR);

        if (length < 0)
        {
            return Failed();
        }

        Counters.BytesWritten(length);
        return r.Reply(new fuse_write_out { size = (uint)length });
    }

    private int Poll(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_poll_in poll))
        {
            return Fail(Errno.EINVAL);
        }

        if (!_handles.TryPin(poll.fh, r.NodeId, HandleKind.Fifo, out HandlePin handle))
        {
            return Unsupported(FuseOpcode.FUSE_POLL); // the guest's kernel knows that other files are always ready
        }

        using HandlePin pinned = handle;
        if ((poll.flags & Fuse.FUSE_POLL_SCHEDULE_NOTIFY) != 0)
        {
            Fifos.Want(poll.fh, poll.kh);
        }

        Libc.pollfd state = new() { fd = handle.Fd, events = (short)(poll.events & 0x7FFF) };
        return Libc.poll(&state, 1, 0) < 0 ? Failed() : r.Reply(new fuse_poll_out { revents = (ushort)state.revents });
    }
}
