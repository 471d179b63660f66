using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Tests.Shared;
using MicroVm.VirtioFs.Locks;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Waiting;
using Xunit;

namespace MicroVm.VirtioFs.Tests;

/// <summary>Locks of two guests and the host on one file.</summary>
public sealed class LockTests : IDisposable
{
    private readonly TempTree _tree = new();
    private readonly FuseClient _a;
    private readonly FuseClient _b;
    private readonly ulong _node;
    private readonly ulong _handle;

    public LockTests()
    {
        _tree.Write("f", "content");
        _a = new FuseClient(_tree.Share);
        _b = new FuseClient(_tree.Share);
        _node = _a.Walk("f");
        _handle = _a.Open(_node, Libc.O_RDWR);
    }

    public void Dispose()
    {
        _a.Dispose();
        _b.Dispose();
        _tree.Dispose();
    }

    [Theory]
    [InlineData(0u)]
    [InlineData(Fuse.FUSE_LK_FLOCK)]
    public void Guests_and_the_host_exclude_each_other(uint kind)
    {
        ulong other = _b.Walk("f");
        ulong otherHandle = _b.Open(other, Libc.O_RDWR);
        Assert.Equal(Errno.OK, Set(_a, _node, _handle, 1, Libc.F_WRLCK, flags: kind));
        Assert.Equal(Errno.EAGAIN, Set(_b, other, otherHandle, 1, Libc.F_RDLCK, flags: kind));
        Assert.Equal(Errno.EAGAIN, OnHost(kind, Libc.F_RDLCK));
        Assert.Equal(Errno.OK, Set(_a, _node, _handle, 1, Libc.F_RDLCK, flags: kind));
        Assert.Equal(Errno.OK, Set(_b, other, otherHandle, 1, Libc.F_RDLCK, flags: kind));
        Assert.Equal(Errno.OK, OnHost(kind, Libc.F_RDLCK));
        Assert.Equal(Errno.EAGAIN, OnHost(kind, Libc.F_WRLCK));
        Assert.Equal(Errno.OK, Set(_a, _node, _handle, 1, Libc.F_UNLCK, flags: kind));
        _b.Guest.Device.Reset();
        Assert.Equal(Errno.OK, OnHost(kind, Libc.F_WRLCK));
    }

    [Fact]
    public void Owners_of_one_guest_exclude_each_other_and_are_named()
    {
        Assert.Equal(Errno.OK, Set(_a, _node, _handle, 1, Libc.F_WRLCK, 10, 19, pid: 77));
        Assert.Equal(Errno.EAGAIN, Set(_a, _node, _handle, 2, Libc.F_WRLCK, 0, 10));
        Assert.Equal(Errno.OK, Set(_a, _node, _handle, 2, Libc.F_WRLCK, 20, ulong.MaxValue >> 1));
        fuse_file_lock found = Get(_a, 2, Libc.F_RDLCK, 0, 100);
        Assert.Equal((10ul, 19ul, (uint)Libc.F_WRLCK, 77u), (found.start, found.end, found.type, found.pid));
        Assert.Equal((uint)Libc.F_UNLCK, Get(_a, 1, Libc.F_RDLCK, 0, 19).type);
        Assert.Equal(2, _a.Counter("fs.locks"));

        // Owner 1 closes a descriptor; owner 2's file is closed for good.
        _a.Ok(FuseOpcode.FUSE_FLUSH, _node, FuseClient.Bytes(new fuse_flush_in { fh = _handle, lock_owner = 1 }));
        Assert.Equal((uint)Libc.F_UNLCK, Get(_a, 2, Libc.F_WRLCK, 0, 19).type);
        Assert.Equal(Errno.EAGAIN, OnHost(0, Libc.F_WRLCK));
        _a.Release(_node, _handle);
        Assert.Equal(Errno.OK, OnHost(0, Libc.F_WRLCK));
        Assert.Equal(0, _a.Counter("fs.locks"));
    }

    [Fact]
    public void A_read_lock_becomes_a_write_lock_by_another_handle()
    {
        ulong reader = _a.Open(_node, Libc.O_RDONLY);
        Assert.Equal(Errno.EBADF, Set(_a, _node, reader, 1, Libc.F_WRLCK));
        Assert.Equal(Errno.OK, Set(_a, _node, reader, 1, Libc.F_RDLCK, 0, 9));
        Assert.Equal(Errno.OK, Set(_a, _node, _handle, 1, Libc.F_WRLCK, 5, 6));
        Assert.Equal(Errno.EAGAIN, OnHost(0, Libc.F_RDLCK));
        Assert.Equal(Errno.OK, Set(_a, _node, _handle, 1, Libc.F_UNLCK, 5, 6));
        Assert.Equal(Errno.OK, OnHost(0, Libc.F_RDLCK));
        Assert.Equal(Errno.EAGAIN, OnHost(0, Libc.F_WRLCK));
    }

    [Fact]
    public void A_waiting_request_holds_nothing_up_and_ends_when_the_lock_is_given_up()
    {
        Assert.Equal(Errno.OK, Set(_a, _node, _handle, 1, Libc.F_WRLCK));
        ulong reply = Wait(_a, 2, unique: 42);
        _ = _a.GetAttr(_node);
        Assert.False(_a.Guest.IsIdle(FsGuest.Requests));
        Assert.Equal(Errno.OK, Set(_a, _node, _handle, 1, Libc.F_UNLCK));
        Assert.Equal((0, 42ul), Answer(_a, reply));
        Assert.Equal(Errno.EAGAIN, OnHost(0, Libc.F_RDLCK));
    }

    [Fact]
    public void A_waiting_request_sees_the_host_let_go()
    {
        using (Hold host = new(_tree.At("f")))
        {
            Assert.Equal(Errno.EAGAIN, Set(_a, _node, _handle, 2, Libc.F_RDLCK));
            ulong early = Wait(_a, 2, unique: 43);
            _ = _a.GetAttr(_node);
            Assert.False(_a.Guest.IsIdle(FsGuest.Requests));
            host.Dispose();
            Assert.Equal((0, 43ul), Answer(_a, early));
        }
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void An_interrupt_ends_the_waiting_also_when_it_comes_first(bool first)
    {
        using Hold host = new(_tree.At("f"));
        if (first)
        {
            Interrupt(_a, 44);
        }

        ulong reply = Wait(_a, 2, unique: 44);
        if (!first)
        {
            _ = _a.GetAttr(_node);
            Interrupt(_a, 44);
        }

        Assert.Equal((-(int)Errno.EINTR, 44ul), Answer(_a, reply));
    }

    [Fact]
    public void A_file_stays_open_when_waiting_for_its_lock_is_interrupted()
    {
        using Hold host = new(_tree.At("f"));
        ulong reply = Wait(_a, 2, unique: 48);
        _ = _a.GetAttr(_node);
        Interrupt(_a, 48);
        Assert.Equal((-(int)Errno.EINTR, 48ul), Answer(_a, reply));
        host.Dispose();
        Assert.Equal(Errno.OK, Set(_a, _node, _handle, 2, Libc.F_WRLCK));
    }

    [Fact]
    public void Two_that_wait_for_each_other_are_told()
    {
        Assert.Equal(Errno.OK, Set(_a, _node, _handle, 1, Libc.F_WRLCK, 0, 0));
        Assert.Equal(Errno.OK, Set(_a, _node, _handle, 2, Libc.F_WRLCK, 1, 1));
        ulong reply = Wait(_a, 1, unique: 45, 1, 1);
        Assert.Equal(Errno.EDEADLK, Set(_a, _node, _handle, 2, Libc.F_WRLCK, 0, 0, opcode: FuseOpcode.FUSE_SETLKW));
        Assert.Equal(Errno.OK, Set(_a, _node, _handle, 2, Libc.F_UNLCK, 1, 1));
        Assert.Equal((0, 45ul), Answer(_a, reply));
    }

    [Fact]
    public void The_number_of_locks_is_bounded()
    {
        Errno error = Errno.OK;
        ulong owner = 0;
        for (; error == Errno.OK && owner <= LockTable.MaxOwners; owner++)
        {
            error = Set(_a, _node, _handle, owner + 1, Libc.F_RDLCK);
        }

        Assert.Equal((Errno.ENOLCK, (ulong)LockTable.MaxOwners + 1), (error, owner));
        Assert.Equal(Errno.EINVAL, Set(_a, _node, _handle, 1, 7));
        Assert.Equal(Errno.EINVAL, Set(_a, _node, _handle, 1, Libc.F_RDLCK, 5, 4));
        Assert.Equal(Errno.EINVAL, Set(_a, _node, _handle, 1, Libc.F_RDLCK, 5, ulong.MaxValue));
        Assert.Equal(Errno.EBADF, Set(_a, _node, 4711, 1, Libc.F_RDLCK));
    }

    [Fact]
    public void What_is_locked_can_be_unlocked_when_the_table_is_full()
    {
        // One range in a file of its own, to be cut; the rest fill the table.
        Assert.Equal(Errno.OK, Set(_a, _node, _handle, 1, Libc.F_WRLCK));
        _tree.Write("g", "content");
        ulong other = _a.Walk("g");
        ulong otherHandle = _a.Open(other, Libc.O_RDWR);
        ulong count = 0;
        Errno error = Errno.OK;
        for (; error == Errno.OK && count < LockTable.MaxRanges; count++)
        {
            error = Set(_a, other, otherHandle, 2, Libc.F_RDLCK, 2 * count, 2 * count);
        }

        Assert.Equal((Errno.ENOLCK, LockTable.MaxRanges - 1), (error, _a.Counter("fs.locks")));

        // What cuts a range has room of its own, which has an end, too.
        error = Errno.OK;
        for (ulong cut = 2 * LockTable.MaxRangesAfterUnlocks; error == Errno.OK && cut > 0; cut -= 2)
        {
            error = Set(_a, _node, _handle, 1, Libc.F_UNLCK, cut - 1, cut - 1);
        }

        Assert.Equal((Errno.ENOLCK, LockTable.MaxRangesAfterUnlocks), (error, _a.Counter("fs.locks")));
        Assert.Equal(Errno.ENOLCK, Set(_a, other, otherHandle, 2, Libc.F_RDLCK, 1, 1));

        // What cuts nothing needs no room: a whole range, the end of one, all that an owner has.
        Assert.Equal(Errno.OK, Set(_a, other, otherHandle, 2, Libc.F_UNLCK, 0, 0));
        Assert.Equal(Errno.OK, Set(_a, _node, _handle, 1, Libc.F_UNLCK, 1));
        Assert.Equal(Errno.OK, Set(_a, other, otherHandle, 2, Libc.F_UNLCK));
        Assert.Equal(Errno.OK, Set(_a, _node, _handle, 1, Libc.F_UNLCK));
        Assert.Equal(0, _a.Counter("fs.locks"));
        Assert.Equal(Errno.OK, OnHost(0, Libc.F_WRLCK));
    }

    [Fact]
    public void The_number_of_requests_that_wait_is_bounded()
    {
        ulong reply;
        using (Hold host = new(_tree.At("f")))
        {
            // The same chain each time, as no driver would.
            reply = Wait(_a, 2, unique: 46);
            for (int i = 1; i < WaitingRequests.Max; i++)
            {
                _a.Guest.Offer(FsGuest.Requests, 100);
            }

            _a.Guest.Waiting = WaitingRequests.Max;
            Assert.Equal(Errno.ENOLCK, Set(_a, _node, _handle, 3, Libc.F_WRLCK, opcode: FuseOpcode.FUSE_SETLKW));
            Assert.False(_a.Guest.IsIdle(FsGuest.Requests));
        }

        Assert.Equal((0, 46ul), Answer(_a, reply));
    }

    private static byte[] Args(
        ulong handle, ulong owner, int type, ulong start, ulong end, uint flags = 0, uint pid = 1) => FuseClient.Bytes(new fuse_lk_in
        {
            fh = handle,
            owner = owner,
            lk = new() { start = start, end = end, type = (uint)type, pid = pid },
            lk_flags = flags,
        });

    private static Errno Set(
        FuseClient fs, ulong node, ulong handle, ulong owner, int type, ulong start = 0, ulong end = long.MaxValue, uint flags = 0, uint pid = 1, FuseOpcode opcode = FuseOpcode.FUSE_SETLK) =>
        fs.Error(opcode, node, Args(handle, owner, type, start, end, flags, pid), 0);

    private static void Interrupt(FuseClient fs, ulong unique)
    {
        fuse_in_header header = new() { len = 48, opcode = (uint)FuseOpcode.FUSE_INTERRUPT, unique = unique | 1 };
        (uint written, _) = fs.Guest.Send(FsGuest.HighPriority, [FuseClient.Join(FuseClient.Bytes(header), FuseClient.Bytes(new fuse_interrupt_in { unique = unique }))], []);
        Assert.Equal(0u, written);
    }

    private static (int Error, ulong Unique) Answer(FuseClient fs, ulong reply)
    {
        Assert.True(SpinWait.SpinUntil(() => fs.Guest.IsIdle(FsGuest.Requests), TimeSpan.FromMinutes(1)), "the request did not come back");
        fs.Guest.Waiting = 0;
        byte[] header = new byte[16];
        Assert.True(fs.Guest.Memory.TryRead(reply, header));
        fuse_out_header head = FuseClient.Parse<fuse_out_header>(header);
        Assert.Equal(16u, head.len);
        return (head.error, head.unique);
    }

    private fuse_file_lock Get(FuseClient fs, ulong owner, int type, ulong start, ulong end) =>
        FuseClient.Parse<fuse_lk_out>(fs.Ok(FuseOpcode.FUSE_GETLK, _node, Args(_handle, owner, type, start, end), 24)).lk;

    /// <summary>Sends a SETLKW whose answer has its header in two segments, and does not wait; where the answer will be.</summary>
    private ulong Wait(FuseClient fs, ulong owner, ulong unique, ulong start = 0, ulong end = long.MaxValue)
    {
        const ulong At = 0x80000;
        byte[] args = Args(_handle, owner, Libc.F_WRLCK, start, end);
        fuse_in_header header = new() { len = (uint)(40 + args.Length), opcode = (uint)FuseOpcode.FUSE_SETLKW, nodeid = _node, unique = unique };
        Assert.True(fs.Guest.Memory.TryWrite(At, FuseClient.Join(FuseClient.Bytes(header), args)));
        fs.Guest.PutDescriptor(FsGuest.Requests, 100, At, header.len, 1, 101);
        fs.Guest.PutDescriptor(FsGuest.Requests, 101, At + 0x1000, 5, 3, 102);
        fs.Guest.PutDescriptor(FsGuest.Requests, 102, At + 0x1005, 11, 2, 0);
        fs.Guest.Waiting = 1;
        fs.Guest.Offer(FsGuest.Requests, 100);
        return At + 0x1000;
    }

    private unsafe Errno OnHost(uint kind, int type)
    {
        using SafeFd fd = SafeFd.From(Libc.open(_tree.At("f"), Libc.O_RDWR | Libc.O_CLOEXEC, 0), "open");
        Libc.flock64 range = new() { l_type = (short)type };
        int result = kind == Fuse.FUSE_LK_FLOCK
            ? Libc.flock(fd.Value, Libc.LOCK_NB | (type == Libc.F_WRLCK ? Libc.LOCK_EX : Libc.LOCK_SH))
            : Libc.fcntl(fd.Value, Libc.F_OFD_SETLK, &range);
        return result == 0 ? Errno.OK : Check.LastErrno;
    }

    /// <summary>The host has the whole file.</summary>
    private sealed unsafe class Hold : IDisposable
    {
        private readonly SafeFd _fd;

        public Hold(string path)
        {
            _fd = SafeFd.From(Libc.open(path, Libc.O_RDWR | Libc.O_CLOEXEC, 0), "open");
            Libc.flock64 range = new() { l_type = Libc.F_WRLCK };
            Assert.Equal(0, Libc.fcntl(_fd.Value, Libc.F_OFD_SETLK, &range));
        }

        public void Dispose() => _fd.Dispose();
    }
}
