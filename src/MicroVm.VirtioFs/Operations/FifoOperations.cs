using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Fifos;
using MicroVm.VirtioFs.Handles;
using MicroVm.VirtioFs.HostFiles;
using MicroVm.VirtioFs.Inodes;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;
using MicroVm.VirtioFs.Waiting;
using static MicroVm.VirtioFs.Protocol.FuseResult;

namespace MicroVm.VirtioFs.Operations;

/// <summary>
/// OPEN_FIFO of this project's guest kernel (kernel-config/patches), POLL, and a FIFO's READ and WRITE: FIFOs of exports that share sockets
/// are the host's, so that their ends may be in different VMs. No request waits for data or room; an open(2) that waits for the other end is
/// kept aside.
/// </summary>
internal sealed class FifoOperations(FsContext fs, HandleOpener opener)
{
    public int Open(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_open_in open) || !fs.Session.OpensFifos)
        {
            return Fail(Errno.EINVAL);
        }

        uint flags = open.flags & (Libc.O_ACCMODE | Libc.O_NONBLOCK);
        FifoOpening opening = new(r.NodeId, flags);
        int error = TryOpen(ref opening);
        if (error == Fail(Errno.EAGAIN))
        {
            error = !r.MayWait ? Fail(Errno.ENFILE) : fs.Waiting.Add(new WaitingRequest(opening), r.Header.unique, r.Chain, blocker: 0);
            if (error == 0)
            {
                return FuseRequest.Deferred;
            }

            GiveUp(opening);
            return error == Fail(Errno.ENOLCK) ? Fail(Errno.ENFILE) : error;
        }

        return error != 0 ? error : r.Reply(new fuse_open_out { fh = opening.Handle });
    }

    /// <summary>
    /// Opens a FIFO, or looks once more whether the other end has come. While it waits, a reader has its handle already, so that a writer
    /// finds it; a writer has none, for it would be an end to the readers if it went.
    /// </summary>
    /// <returns>0; -EAGAIN: it waits for the other end; or another negative errno.</returns>
    public int TryOpen(ref FifoOpening opening)
    {
        if (opening.Handle == 0)
        {
            int error = OpenHandle(opening.Node, opening.Flags, out ulong handle);
            if (error != 0)
            {
                return error == Fail(Errno.ENXIO) && opening.MayWait ? Fail(Errno.EAGAIN) : error;
            }

            opening = opening with { Handle = handle };
            fs.Locks.NoteRelease(); // who waits in this VM may have waited for this end
        }

        if ((opening.Flags & Libc.O_ACCMODE) != Libc.O_RDONLY || !opening.MayWait)
        {
            return 0;
        }

        if (!fs.Handles.TryPin(opening.Handle, opening.Node, HandleKind.Fifo, out HandlePin pin))
        {
            GiveUp(opening); // its export was removed
            opening = opening with { Handle = 0 };
            return Fail(Errno.ESTALE);
        }

        using HandlePin pinned = pin;
        return fs.Fifos.HasHadWriter(pin.Fd) ? 0 : Fail(Errno.EAGAIN);
    }

    /// <summary>Closes what an open(2) that is interrupted has got so far.</summary>
    public void GiveUp(in FifoOpening opening)
    {
        if (opening.Handle != 0)
        {
            fs.Fifos.Remove(opening.Handle);
            _ = fs.Handles.Remove(opening.Handle, opening.Node, directory: false);
        }
    }

    /// <summary>READ and WRITE of a FIFO: one system call, so that what pipe(7) says of PIPE_BUF holds.</summary>
    /// <param name="r">The request.</param>
    /// <param name="handle">The open FIFO.</param>
    /// <param name="size">How many bytes, which the request's segments hold.</param>
    /// <param name="isWrite">It is WRITE.</param>
    // Safe: the vectors are the request's, and lead to buffers that the chain checked.
    public unsafe int Transfer(FuseRequest r, ulong handle, uint size, bool isWrite)
    {
        if (!fs.Handles.TryPin(handle, r.NodeId, HandleKind.Fifo, out HandlePin fifo))
        {
            return Fail(Errno.EBADF);
        }

        using HandlePin pinned = fifo;
        int count = isWrite ? r.SliceArguments((ulong)sizeof(fuse_write_in), size) : r.SlicePayload(0, size);
        nint length;
        do
        {
            length = isWrite ? Libc.writev(fifo.Fd, r.Vectors, count) : Libc.readv(fifo.Fd, r.Vectors, count);
        }
        while (length < 0 && Check.LastErrno == Errno.EINTR);

        if (length < 0)
        {
            return Failed();
        }

        if (!isWrite)
        {
            fs.Counters.BytesRead(length);
            return (int)length;
        }

        fs.Counters.BytesWritten(length);
        return r.Reply(new fuse_write_out { size = (uint)length });
    }

    // Safe: the kernel reads and writes locals of this call only.
    public unsafe int Poll(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_poll_in poll))
        {
            return Fail(Errno.EINVAL);
        }

        if (!fs.Handles.TryPin(poll.fh, r.NodeId, HandleKind.Fifo, out HandlePin handle))
        {
            return fs.Unsupported(FuseOpcode.FUSE_POLL); // the guest's kernel knows that other files are always ready
        }

        using HandlePin pinned = handle;
        if ((poll.flags & Fuse.FUSE_POLL_SCHEDULE_NOTIFY) != 0)
        {
            fs.Fifos.Want(poll.fh, poll.kh);
        }

        Libc.pollfd state = new() { fd = handle.Fd, events = (short)(poll.events & 0x7FFF) };
        return Libc.poll(&state, 1, 0) < 0 ? Failed() : r.Reply(new fuse_poll_out { revents = (ushort)state.revents });
    }

    // Safe: the link has room for any descriptor's number; the kernel reads it only.
    private unsafe int OpenHandle(ulong node, uint flags, out ulong handle)
    {
        handle = 0;
        if (!fs.Inodes.TryPin(node, out InodePin inode))
        {
            return Fail(Errno.ESTALE);
        }

        using InodePin pinned = inode;
        if (inode.FileType != Libc.S_IFIFO || !fs.SharesSockets(node))
        {
            return Fail(Errno.EINVAL);
        }

        if (!fs.Handles.TryReserve())
        {
            return Fail(Errno.ENFILE);
        }

        byte* link = stackalloc byte[ProcFd.NameLength];
        ProcFd.Format(inode.Fd, link);
        int access = (int)(flags & Libc.O_ACCMODE);
        int fd = Libc.openat(fs.ProcSelfFd.Value, link, access | Libc.O_NONBLOCK | Libc.O_CLOEXEC, 0);
        if (fd < 0)
        {
            int error = Failed();
            fs.Handles.Release();
            return error;
        }

        int added = opener.AddHandle(inode, HandleKind.Fifo, fd, access, out fuse_open_out reply);
        if (added == 0 && !fs.Fifos.TryAdd(reply.fh, fd))
        {
            _ = fs.Handles.Remove(reply.fh, node, directory: false);
            added = Fail(Errno.ENFILE);
        }

        handle = added == 0 ? reply.fh : 0;
        return added;
    }
}
