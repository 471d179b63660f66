using System.Diagnostics;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Tests.Shared;
using MicroVm.VirtioFs.Fifos;
using MicroVm.VirtioFs.Protocol;
using Xunit;

namespace MicroVm.VirtioFs.Tests;

/// <summary>FIFOs that the guest opens at the server: OPEN_FIFO, READ, WRITE, POLL and what EVENTS tells of them.</summary>
public sealed unsafe class HostFifoTests : IDisposable
{
    private const ulong At = 0x80000;
    private readonly TempTree _tree = new();
    private readonly FuseClient _fs;
    private readonly ulong _fifo;

    public HostFifoTests()
    {
        using Process made = Process.Start("mkfifo", _tree.At("f"));
        made.WaitForExit();
        _fs = new FuseClient(FuseClient.Export("shared", _tree.Share) with { SharesSockets = true });
        _fs.Init(flags2: FuseClient.OfThisKernel | GuestKernelFlags.HostFifos);
        _fifo = Fifo().nodeid;
    }

    public void Dispose()
    {
        _fs.Dispose();
        _tree.Dispose();
    }

    [Fact]
    public void Only_fifos_where_sockets_are_shared_are_the_hosts()
    {
        _tree.Write("file", "x");
        fuse_entry_out file = _fs.Lookup(_fs.Lookup(1, "shared").nodeid, "file");
        Assert.Equal((GuestKernelFlags.FifoOfHost, 0u), (Fifo().attr.flags & GuestKernelFlags.FifoOfHost, file.attr.flags & GuestKernelFlags.FifoOfHost));
        Assert.Equal(Errno.EINVAL, OpenError(file.nodeid, Libc.O_RDWR));

        using FuseClient plain = new(_tree.Share);
        plain.Init(flags2: FuseClient.OfThisKernel | GuestKernelFlags.HostFifos);
        fuse_entry_out fifo = plain.Lookup(plain.Lookup(1, "x").nodeid, "f");
        Assert.Equal(0u, fifo.attr.flags & GuestKernelFlags.FifoOfHost);
        Assert.Equal(Errno.EINVAL, plain.Error(FuseOpcode.FUSE_OPEN_FIFO, fifo.nodeid, Args(Libc.O_RDWR)));

        // Another kernel opens FIFOs by itself.
        _fs.Init();
        Assert.Equal(0u, Fifo().attr.flags & GuestKernelFlags.FifoOfHost);
        Assert.Equal(Errno.EINVAL, OpenError(Fifo().nodeid, Libc.O_RDWR));
    }

    [Fact]
    public void Bytes_go_through_and_no_request_waits_for_them()
    {
        Assert.Equal(Errno.ENXIO, OpenError(_fifo, Libc.O_WRONLY | Libc.O_NONBLOCK));
        ulong reader = Open(Libc.O_RDONLY | Libc.O_NONBLOCK), writer = Open(Libc.O_WRONLY);
        Assert.Equal(Errno.EAGAIN, _fs.Error(FuseOpcode.FUSE_READ, _fifo, FuseClient.ReadArgs(reader, 0, 100)));
        Assert.Equal(5u, _fs.Write(_fifo, writer, 0, "hello"u8.ToArray()));
        Assert.Equal("hello"u8.ToArray(), _fs.Read(_fifo, reader, 77, 100));
        Assert.Equal(Errno.EBADF, _fs.Error(FuseOpcode.FUSE_READ, _fifo, FuseClient.ReadArgs(writer, 0, 100)));
        _fs.Release(_fifo, writer);
        Assert.Empty(_fs.Read(_fifo, reader, 0, 100));
        writer = Open(Libc.O_WRONLY);
        _fs.Release(_fifo, reader);
        Assert.Equal(Errno.EPIPE, _fs.Error(FuseOpcode.FUSE_WRITE, _fifo, FuseClient.WriteArgs(writer, 0, [1])));
    }

    [Fact]
    public void A_file_that_the_guest_waits_for_is_told_once()
    {
        ulong reader = Open(Libc.O_RDONLY | Libc.O_NONBLOCK), writer = Open(Libc.O_WRONLY);
        Assert.Equal(0u, Poll(reader, key: 7, waits: true));
        _fs.Write(_fifo, writer, 0, [1]);
        Assert.Equal([(7ul, 1u << 31)], Told());
        Assert.Equal((uint)Libc.POLLIN, Poll(reader, key: 7, waits: false));

        // Nobody waits for it now, so that the next answer is another file's.
        _fs.Write(_fifo, writer, 0, [1]);
        ulong other = Open(Libc.O_RDONLY | Libc.O_NONBLOCK);
        _fs.Read(_fifo, reader, 0, 100);
        Assert.Equal(0u, Poll(other, key: 8, waits: true));
        _fs.Release(_fifo, writer);
        Assert.Equal([(8ul, 1u << 31)], Told());
        Assert.Equal((uint)Libc.POLLHUP, Poll(other, key: 8, waits: false));
        Assert.Equal(Errno.ENOSYS, _fs.Error(FuseOpcode.FUSE_POLL, _fifo, FuseClient.Bytes(new fuse_poll_in { fh = 4711 })));
    }

    [Fact]
    public void A_reader_waits_for_a_writer_of_the_host()
    {
        Wait(Libc.O_RDONLY, unique: 42);
        _ = _fs.GetAttr(_fifo);
        Assert.False(_fs.Guest.IsIdle(FsGuest.Requests));
        using SafeFd writer = OnHost(Libc.O_WRONLY);
        (int error, ulong handle) = Answer(42);
        Assert.Equal(0, error);
        byte one = 1;
        Assert.Equal(1, Libc.write(writer.Value, &one, 1));
        Assert.Equal([1], _fs.Read(_fifo, handle, 0, 10));
    }

    [Fact]
    public void A_writer_waits_for_a_reader_of_the_host()
    {
        Wait(Libc.O_WRONLY, unique: 43);
        _ = _fs.GetAttr(_fifo);
        Assert.False(_fs.Guest.IsIdle(FsGuest.Requests));
        using SafeFd reader = OnHost(Libc.O_RDONLY);
        (int error, ulong handle) = Answer(43);
        Assert.Equal(0, error);
        Assert.Equal(1u, _fs.Write(_fifo, handle, 0, [1]));
    }

    [Theory]
    [InlineData(Libc.O_RDONLY)]
    [InlineData(Libc.O_WRONLY)]
    public void An_interrupt_ends_the_waiting_and_closes_the_end(int flags)
    {
        Wait(flags, unique: 44);
        _ = _fs.GetAttr(_fifo);
        fuse_in_header header = new() { len = 48, opcode = (uint)FuseOpcode.FUSE_INTERRUPT, unique = 45 };
        _fs.Guest.Send(FsGuest.HighPriority, [FuseClient.Join(FuseClient.Bytes(header), FuseClient.Bytes(new fuse_interrupt_in { unique = 44 }))], []);
        Assert.Equal(-(int)Errno.EINTR, Answer(44).Error);
        Assert.Equal(0, _fs.Counter("fs.handles"));
        Assert.Equal(Errno.ENXIO, OpenError(_fifo, Libc.O_WRONLY | Libc.O_NONBLOCK));
    }

    [Fact]
    public void A_reset_closes_the_ends()
    {
        Wait(Libc.O_RDONLY, unique: 46);
        _ = _fs.GetAttr(_fifo);
        _fs.Guest.Device.Reset();
        _fs.Guest.Waiting = 0;
        Assert.Equal(Errno.ENXIO, Assert.Throws<LinuxException>(() => OnHost(Libc.O_WRONLY)).Errno);
    }

    [Fact]
    public void The_number_of_open_fifos_is_bounded()
    {
        for (int i = 0; i < HostFifos.Max; i++)
        {
            _ = Open(Libc.O_RDWR);
        }

        Assert.Equal(Errno.ENFILE, OpenError(_fifo, Libc.O_RDWR));
    }

    private static byte[] Args(int flags) => FuseClient.Bytes(new fuse_open_in { flags = (uint)flags });

    private fuse_entry_out Fifo() => _fs.Lookup(_fs.Lookup(1, "shared").nodeid, "f");

    private SafeFd OnHost(int flags) => SafeFd.From(Libc.open(_tree.At("f"), flags | Libc.O_NONBLOCK | Libc.O_CLOEXEC, 0), "open");

    private ulong Open(int flags) => FuseClient.Parse<fuse_open_out>(_fs.Ok(FuseOpcode.FUSE_OPEN_FIFO, _fifo, Args(flags))).fh;

    private Errno OpenError(ulong node, int flags) => _fs.Error(FuseOpcode.FUSE_OPEN_FIFO, node, Args(flags));

    private uint Poll(ulong handle, ulong key, bool waits)
    {
        fuse_poll_in poll = new() { fh = handle, kh = key, flags = waits ? Fuse.FUSE_POLL_SCHEDULE_NOTIFY : 0, events = (uint)Libc.POLLIN };
        return FuseClient.Parse<fuse_poll_out>(_fs.Ok(FuseOpcode.FUSE_POLL, _fifo, FuseClient.Bytes(poll))).revents;
    }

    private (ulong Key, uint Mask)[] Told()
    {
        byte[] answer = _fs.Ok(FuseOpcode.FUSE_EVENTS, 1, new byte[8], room: 4096);
        return [.. Enumerable.Range(0, answer.Length / 24).Select(i => FuseClient.Parse<fuse_event>(answer, i * 24)).Select(e => (e.nodeid, e.mask))];
    }

    /// <summary>Sends an OPEN_FIFO whose answer has its header in two segments, and does not wait.</summary>
    private void Wait(int flags, ulong unique)
    {
        byte[] args = Args(flags);
        fuse_in_header header = new() { len = (uint)(40 + args.Length), opcode = (uint)FuseOpcode.FUSE_OPEN_FIFO, nodeid = _fifo, unique = unique };
        Assert.True(_fs.Guest.Memory.TryWrite(At, FuseClient.Join(FuseClient.Bytes(header), args)));
        _fs.Guest.PutDescriptor(FsGuest.Requests, 100, At, header.len, 1, 101);
        _fs.Guest.PutDescriptor(FsGuest.Requests, 101, At + 0x1000, 5, 3, 102);
        _fs.Guest.PutDescriptor(FsGuest.Requests, 102, At + 0x1005, 27, 2, 0);
        _fs.Guest.Waiting = 1;
        _fs.Guest.Offer(FsGuest.Requests, 100);
    }

    private (int Error, ulong Handle) Answer(ulong unique)
    {
        Assert.True(SpinWait.SpinUntil(() => _fs.Guest.IsIdle(FsGuest.Requests), TimeSpan.FromMinutes(1)), "the request did not come back");
        _fs.Guest.Waiting = 0;
        byte[] answer = new byte[32];
        Assert.True(_fs.Guest.Memory.TryRead(At + 0x1000, answer));
        fuse_out_header head = FuseClient.Parse<fuse_out_header>(answer);
        Assert.Equal((head.error == 0 ? 32u : 16u, unique), (head.len, head.unique));
        return (head.error, FuseClient.Parse<fuse_open_out>(answer, 16).fh);
    }
}
