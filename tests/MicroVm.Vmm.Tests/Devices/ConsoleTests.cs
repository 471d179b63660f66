using System.Security.Cryptography;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Tests.Shared.Virtio;
using MicroVm.Vmm.Devices.Console;
using Xunit;

namespace MicroVm.Vmm.Tests.Devices;

public sealed unsafe class ConsoleTests
{
    [Fact]
    public void Input_from_a_pipe_reaches_the_guests_buffers_and_waits_for_them()
    {
        (SafeFd read, SafeFd write) = Pipe();
        ConsoleDevice device = new(read, null);
        using GuestDriver guest = new(device);
        guest.Activate();
        Write(write, "typed ahead"u8);
        guest.Turn();
        ulong at = guest.Allocate(64);
        guest.Queues[0].Add(new Segment(at, 5, true), new Segment(at + 5, 20, true));
        guest.Queues[0].Notify();
        guest.Turn();
        Assert.True(guest.Queues[0].TryTakeUsed(out _, out uint written));
        Assert.Equal("typed ahead"u8.ToArray(), guest.Span(at, (int)written).ToArray());

        // A buffer that waits is filled when something comes; after the end nothing more.
        guest.Queues[0].Add(new Segment(at, 64, true));
        guest.Queues[0].Notify();
        guest.Turn();
        Assert.Equal(0, guest.Queues[0].UsedCount);
        Write(write, "more"u8);
        guest.Turn();
        Assert.True(guest.Queues[0].TryTakeUsed(out _, out written));
        Assert.Equal(4u, written);
        write.Dispose();
        guest.Queues[0].Add(new Segment(at, 64, true));
        guest.Queues[0].Notify();
        guest.Turn();
        Assert.Equal(0, guest.Queues[0].UsedCount);
        Assert.Equal(0, guest.Loop.RunOnce(0));
    }

    [Fact]
    public void Output_to_a_full_pipe_waits_in_the_guests_buffer_and_arrives_whole()
    {
        (SafeFd read, SafeFd write) = Pipe();
        ConsoleDevice device = new(null, write);
        using GuestDriver guest = new(device);
        guest.Activate();
        const int Length = 300_000;
        ulong at = guest.Allocate(Length);
        RandomNumberGenerator.Fill(guest.Span(at, Length));
        byte[] sent = guest.Span(at, Length).ToArray();
        guest.Queues[1].Add(new Segment(at, 100_000, false), new Segment(at + 100_000, 200_000, false));
        guest.Queues[1].Notify();
        guest.Turn();
        Assert.Equal(0, guest.Queues[1].UsedCount);
        List<byte> got = [];
        while (got.Count < Length)
        {
            got.AddRange(Read(read));
            guest.Turn();
        }

        Assert.Equal(sent, got);
        Assert.Equal(1, guest.Queues[1].UsedCount);
        read.Dispose();
    }

    [Fact]
    public void Shared_descriptions_keep_their_flags()
    {
        (SafeFd read, SafeFd write) = Pipe();
        using SafeFd sharedRead = read.Duplicate();
        using SafeFd sharedWrite = write.Duplicate();
        using ConsoleDevice device = new(read, write);
        Assert.Equal(0, Libc.fcntl(sharedRead.Value, Libc.F_GETFL, 0) & Libc.O_NONBLOCK);
        Assert.Equal(0, Libc.fcntl(sharedWrite.Value, Libc.F_GETFL, 0) & Libc.O_NONBLOCK);
    }

    [Fact]
    public void Output_that_nobody_reads_is_discarded_and_the_guest_goes_on()
    {
        (SafeFd read, SafeFd write) = Pipe();
        ConsoleDevice device = new(null, write);
        using GuestDriver guest = new(device);
        guest.Activate();
        read.Dispose();
        ulong at = guest.Allocate(100);
        for (int i = 0; i < 100; i++)
        {
            guest.Queues[1].Add(new Segment(at, 100, false));
            guest.Queues[1].Notify();
            guest.Turn();
            Assert.True(guest.Queues[1].TryTakeUsed(out _, out _));
        }
    }

    [Fact]
    public void Without_descriptors_output_is_swallowed()
    {
        ConsoleDevice device = new(null, null);
        using GuestDriver guest = new(device);
        guest.Activate();
        guest.Queues[1].Add(new Segment(guest.Allocate(100), 100, false));
        guest.Queues[0].Add(new Segment(guest.Allocate(100), 100, true));
        guest.Queues[1].Notify();
        guest.Queues[0].Notify();
        guest.Turn();
        Assert.Equal((0, 1), (guest.Queues[0].UsedCount, guest.Queues[1].UsedCount));
    }

    [Fact]
    public void Regular_files_are_read_to_their_end_and_written()
    {
        string input = Path.GetTempFileName();
        string output = Path.GetTempFileName();
        byte[] content = RandomNumberGenerator.GetBytes(10_000);
        File.WriteAllBytes(input, content);
        ConsoleDevice device = new(Open(input, Libc.O_RDONLY), Open(output, Libc.O_WRONLY | Libc.O_APPEND));
        using (GuestDriver guest = new(device))
        {
            guest.Activate();
            List<byte> got = [];
            ulong at = guest.Allocate(3000);
            for (int i = 0; i < 5; i++)
            {
                guest.Queues[0].Add(new Segment(at, 3000, true));
                guest.Queues[0].Notify();
                guest.Turn();
                if (guest.Queues[0].TryTakeUsed(out _, out uint written))
                {
                    got.AddRange(guest.Span(at, (int)written));
                    guest.Queues[1].Add(new Segment(at, written, false));
                    guest.Queues[1].Notify();
                    guest.Turn();
                }
            }

            Assert.Equal(content, got);
        }

        Assert.Equal(content, File.ReadAllBytes(output));
        File.Delete(input);
        File.Delete(output);
    }

    [Fact]
    public void One_socket_serves_both_directions()
    {
        (SafeFd ours, SafeFd peer) = UnixSocket.Pair();
        ConsoleDevice device = new(ours.Duplicate(), ours);
        using GuestDriver guest = new(device);
        guest.Activate();
        ulong at = guest.Allocate(64);
        guest.Queues[0].Add(new Segment(at, 64, true));
        guest.Queues[0].Notify();
        guest.Turn();
        Write(peer, "in"u8);
        guest.Turn();
        Assert.True(guest.Queues[0].TryTakeUsed(out _, out uint written));
        Assert.Equal(2u, written);
        guest.Queues[1].Add(new Segment(at, 2, false));
        guest.Queues[1].Notify();
        guest.Turn();
        Assert.Equal("in"u8.ToArray(), Read(peer));
        peer.Dispose();
    }

    [Fact]
    public void Emergency_write_needs_no_driver()
    {
        (SafeFd read, SafeFd write) = Pipe();
        using ConsoleDevice device = new(null, write);
        device.WriteConfig(8, [(byte)'!', 0, 0, 0]);
        device.WriteConfig(4, [(byte)'?', 0, 0, 0]);
        device.WriteConfig(uint.MaxValue, [(byte)'?']);
        Assert.Equal("!"u8.ToArray(), Read(read));
        read.Dispose();
    }

    [Fact]
    public void Reset_and_a_new_driver_go_on_where_the_host_is()
    {
        (SafeFd read, SafeFd write) = Pipe();
        ConsoleDevice device = new(read, null);
        using GuestDriver guest = new(device);
        guest.Activate();
        guest.Turn();
        guest.Reset();
        guest.Activate();
        ulong at = guest.Allocate(64);
        guest.Queues[0].Add(new Segment(at, 64, true));
        guest.Queues[0].Notify();
        guest.Turn();
        Write(write, "again"u8);
        guest.Turn();
        Assert.Equal(1, guest.Queues[0].UsedCount);
        write.Dispose();
    }

    [Fact]
    public void Receive_buffer_without_room_breaks_the_queue()
    {
        (SafeFd read, SafeFd write) = Pipe();
        ConsoleDevice device = new(read, null);
        using GuestDriver guest = new(device);
        guest.Activate();
        Write(write, "x"u8);
        guest.Queues[0].Add(new Segment(guest.Allocate(8), 8, false));
        guest.Queues[0].Notify();
        guest.Turn();
        Assert.NotNull(guest.NeedsReset);
        write.Dispose();
    }

    [Fact]
    public void Bytes_both_ways_allocate_nothing()
    {
        (SafeFd read, SafeFd write) = Pipe();
        (SafeFd sink, SafeFd output) = Pipe();
        ConsoleDevice device = new(read, output);
        using GuestDriver guest = new(device);
        guest.Activate();
        ulong at = guest.Allocate(256);
        byte* bytes = stackalloc byte[256];
        Cycle(100);
        long before = GC.GetAllocatedBytesForCurrentThread();
        Cycle(2000);
        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
        write.Dispose();
        sink.Dispose();

        void Cycle(int n)
        {
            for (int i = 0; i < n; i++)
            {
                _ = Libc.write(write.Value, bytes, 256);
                guest.Queues[0].Add(new Segment(at, 256, true));
                guest.Queues[0].Notify();
                guest.Turn();
                Assert.True(guest.Queues[0].TryTakeUsed(out _, out uint written) && written == 256);
                guest.Queues[1].Add(new Segment(at, 256, false));
                guest.Queues[1].Notify();
                guest.Turn();
                Assert.True(guest.Queues[1].TryTakeUsed(out _, out _));
                Assert.True(Libc.read(sink.Value, bytes, 256) == 256);
            }
        }
    }

    private static (SafeFd Read, SafeFd Write) Pipe()
    {
        int* fds = stackalloc int[2];
        Check.Result(Libc.pipe2(fds, Libc.O_CLOEXEC), "pipe2");
        return (new SafeFd(fds[0]), new SafeFd(fds[1]));
    }

    private static SafeFd Open(string path, int flags) =>
        SafeFd.From(Libc.openat(Libc.AT_FDCWD, path, flags | Libc.O_CLOEXEC, 0), "open", path);

    private static void Write(SafeFd fd, ReadOnlySpan<byte> bytes)
    {
        fixed (byte* p = bytes)
        {
            Assert.Equal(bytes.Length, Libc.write(fd.Value, p, (nuint)bytes.Length));
        }
    }

    private static byte[] Read(SafeFd fd)
    {
        byte[] buffer = new byte[65536];
        fixed (byte* p = buffer)
        {
            return buffer[..(int)Libc.read(fd.Value, p, (nuint)buffer.Length)];
        }
    }
}
