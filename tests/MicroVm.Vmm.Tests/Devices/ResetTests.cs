using System.Diagnostics;
using System.Security.Cryptography;
using MicroVm.Jail;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Memory;
using MicroVm.Tests.Shared.Virtio;
using MicroVm.Virtio;
using MicroVm.VirtioFs;
using MicroVm.VirtioFs.Exports;
using MicroVm.Vmm.Devices.Balloon;
using MicroVm.Vmm.Devices.Block;
using MicroVm.Vmm.Devices.Console;
using MicroVm.Vmm.Devices.Entropy;
using MicroVm.Vmm.Devices.Mem;
using MicroVm.Vmm.Devices.Pmem;
using MicroVm.Vmm.Devices.Vsock;
using Xunit;

namespace MicroVm.Vmm.Tests.Devices;

/// <summary>A reset, whatever waits in the queues: it ends after the request under way, and the device serves again afterwards.</summary>
public sealed class ResetTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("microvm-reset-").FullName;

    private readonly EventLoop _loop = new();
    private readonly GuestMemory _memory = GuestMemory.Create(1 << 20);

    public static TheoryData<string> Devices => ["rng", "console", "vsock", "fs", "block", "pmem", "balloon", "mem"];

    public void Dispose()
    {
        _loop.Dispose();
        _memory.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public void A_device_is_reset_with_work_pending_and_serves_again(string name)
    {
        using GuestDriver guest = new(Make(name), _loop);
        (int queue, Segment[] chain) = Request(guest, name);
        for (int round = 0; round < 20; round++)
        {
            guest.Activate();
            DriverQueue requests = guest.Queues[queue];
            while (requests.FreeDescriptors >= chain.Length)
            {
                requests.Add(chain);
            }

            requests.Notify();
            if (round % 2 == 1)
            {
                guest.Loop.RunOnce(0);
            }

            guest.Reset();
            Assert.Null(guest.NeedsReset);

            // What the device has let go of is the driver's: nothing is written there any more.
            Assert.Equal(0, requests.UsedCount);
        }

        guest.Activate();
        guest.Queues[queue].Add(chain);
        guest.Queues[queue].Notify();
        guest.TurnUntil(() => guest.Queues[queue].UsedCount == 1, $"{name} answers after its resets");
        Assert.Null(guest.NeedsReset);
    }

    [SkippableFact]
    public void A_network_device_is_reset_with_frames_pending_and_sends_again()
    {
        using NetGuest guest = new();
        ulong at = guest.Driver.Allocate(2048);
        for (int round = 0; round < 20; round++)
        {
            while (guest.Driver.Queues[1].FreeDescriptors > 0)
            {
                guest.Driver.Queues[1].Add(new Segment(at, 100, false));
            }

            guest.Driver.Queues[1].Notify();
            guest.Driver.Reset();
            Assert.Equal(0, guest.Driver.Queues[1].UsedCount);
            guest.Driver.Activate();
        }

        guest.Driver.Queues[1].Add(new Segment(at, 100, false));
        guest.Driver.Queues[1].Notify();
        guest.Driver.TurnUntil(() => guest.Driver.Queues[1].UsedCount == 1, "a frame is sent after the resets");
    }

    [Fact]
    public void A_disk_does_nothing_more_for_requests_that_its_reset_found_waiting()
    {
        const int Length = 16 << 20;
        File.WriteAllBytes(Path.Combine(_folder, "disk"), new byte[Length]);
        using GuestDriver guest = new(Make("block"), _loop);
        ulong header = guest.Allocate(16), data = guest.Allocate(Length), status = guest.Allocate(1);
        guest.Span(header, 16).Clear();
        guest.Span(status, 1)[0] = 0xff;
        Segment[] chain = [new(header, 16, false), new(data, Length, true), new(status, 1, true)];
        guest.Activate();
        for (int i = 0; i < 40; i++)
        {
            guest.Queues[0].Add(chain);
        }

        guest.Queues[0].Notify();
        guest.TurnUntil(() => Volatile.Read(ref guest.Span(status, 1)[0]) == 0, "the disk works");
        guest.Device.Reset();
        guest.Span(data, Length).Fill(0x5a);
        Thread.Sleep(50);
        Assert.Equal(-1, guest.Span(data, Length).IndexOfAnyExcept((byte)0x5a));
    }

    [Fact]
    public void A_disk_refuses_a_request_of_more_than_63_MiB()
    {
        using BlockGuest guest = new(new byte[1 << 20]);
        Segment[] chain = [guest.Header(0, 0), .. Enumerable.Repeat(guest.DataSegment(1 << 20, toGuest: true), 64), guest.Status];
        Assert.Equal(1, guest.Raw(chain).Status);
        Assert.Null(guest.Driver.NeedsReset);
        byte[] config = new byte[16];
        guest.Device.ReadConfig(0, config);
        Assert.Equal(512u << 10, BitConverter.ToUInt32(config, 8));
    }

    // A file system that is frozen for a snapshot holds writes back for as long as it takes.
    [SkippableFact]
    public void A_write_that_the_host_holds_back_is_waited_for_by_who_resets()
    {
        Skip.IfNot(Environment.UserName == "root" && File.Exists("/sbin/mkfs.ext4") && File.Exists("/sbin/fsfreeze"), "needs root, mkfs.ext4 and fsfreeze");
        string image = Path.Combine(_folder, "fs"), mount = Directory.CreateDirectory(Path.Combine(_folder, "mount")).FullName;
        File.WriteAllBytes(image, new byte[16 << 20]);
        Assert.True(Run("/sbin/mkfs.ext4", "-q", image));
        Skip.IfNot(Run("/bin/mount", "-o", "loop", image, mount), "no loop device can be mounted here");
        try
        {
            File.WriteAllBytes(Path.Combine(mount, "disk"), new byte[1 << 20]);
            using (GuestDriver guest = new(new BlockDevice("frozen0", Open(Path.Combine(mount, "disk"), Libc.O_RDWR), readOnly: false, "disk"), _loop))
            {
                (_, Segment[] chain) = Request(guest, "block");
                guest.Span(chain[0].Gpa, 1)[0] = 1; // write
                chain[1] = chain[1] with { Writable = false };
                guest.Activate();
                Assert.True(Run("/sbin/fsfreeze", "-f", mount));
                for (int i = 0; i < 10; i++)
                {
                    guest.Queues[0].Add(chain);
                }

                guest.Queues[0].Notify();
                guest.TurnUntil(() => IsBlocked("frozen0"), "the disk's thread waits for the file system");
                Assert.False(guest.Device.TryPark(10));
                Assert.True(Run("/sbin/fsfreeze", "-u", mount));
                Assert.True(guest.Device.TryPark(Timeout.Infinite));
                guest.Device.Reset();
                Assert.Equal(1, guest.Queues[0].UsedCount);
            }
        }
        finally
        {
            _ = Run("/sbin/fsfreeze", "-u", mount);
            _ = Run("/bin/umount", "-l", mount);
        }

        static bool IsBlocked(string name) => Directory.EnumerateDirectories("/proc/self/task").Any(t => File.ReadAllText($"{t}/stat").Contains($"({name}) D", StringComparison.Ordinal));
    }

    // What every device with threads of its own does: a request of the host that does not end holds its thread, and nothing else.
    [Fact]
    public void A_request_that_blocks_is_waited_for_and_no_other_is_begun()
    {
        using GuestDriver guest = new(new EntropyDevice());
        using DeviceThread thread = new("test", ThreadKind.Disk);
        using Blocking handler = new();
        Virtqueue queue = guest.Queues[0].MakeDeviceSide()!;
        RequestQueue? server = null;
        thread.Serve(guest, () => server = new RequestQueue(queue, guest, thread, handler, RequestPolicy.Default));
        ulong at = guest.Allocate(64);
        for (int i = 0; i < 10; i++)
        {
            guest.Queues[0].Add(new Segment(at, 64, true));
        }

        guest.Queues[0].Notify();
        Assert.True(handler.Begun.Wait(TimeSpan.FromSeconds(30)));
        Action end = () => server!.Dispose();
        Assert.False(thread.TryPark(end, 10));
        Assert.False(thread.TryPark(end, 10));
        handler.Go.Set();
        Assert.True(thread.TryPark(end));
        Assert.Equal(1, handler.Count);

        // The driver is told of what was done, and the thread serves again.
        Assert.Equal(1, guest.Queues[0].UsedCount);
        thread.Serve(guest, () => server = new RequestQueue(queue, guest, thread, handler, RequestPolicy.Default));
        guest.TurnUntil(() => guest.Queues[0].UsedCount == 10, "the rest is served");
        Assert.True(thread.TryPark(end));
        Assert.True(thread.TryPark(end));
    }

    [Fact]
    public void A_thread_whose_queue_cannot_be_served_stops_the_device_and_can_be_used_again()
    {
        using GuestDriver guest = new(new EntropyDevice());
        using DeviceThread thread = new("test", ThreadKind.Disk);
        using Blocking handler = new() { Throws = true };
        handler.Go.Set();
        Virtqueue queue = guest.Queues[0].MakeDeviceSide()!;
        RequestQueue? server = null;
        thread.Serve(guest, () => server = new RequestQueue(queue, guest, thread, handler, RequestPolicy.Default));
        ulong at = guest.Allocate(64);
        guest.Queues[0].Add(new Segment(at, 64, true));
        guest.Queues[0].Add(new Segment(at, 64, true));
        guest.Queues[0].Notify();
        guest.TurnUntil(() => guest.NeedsReset is not null, "the device is stopped");
        Assert.Equal("test: the host failed", guest.NeedsReset);
        Assert.True(thread.TryPark(() => server!.Dispose()));
        Assert.Equal(1, handler.Count);

        handler.Throws = false;
        thread.Serve(guest, () => server = new RequestQueue(queue, guest, thread, handler, RequestPolicy.Default));
        guest.TurnUntil(() => guest.Queues[0].UsedCount == 1, "the second request is served");
        Assert.True(thread.TryPark(() => server!.Dispose()));
    }

    private VirtioDevice Make(string name)
    {
        switch (name)
        {
            case "rng":
                return new EntropyDevice();
            case "balloon":
                return new BalloonDevice();
            case "mem":
                return new MemDevice(MemTests.Reserved(_memory), _ => { });
            case "console":
                return new ConsoleDevice(null, Open("/dev/null", Libc.O_WRONLY));
            case "vsock":
                return new VsockDevice(3, Path.Combine(_folder, "vsock"), _loop);
            case "fs":
                return new VirtioFsDevice("test", [new VirtioFsExport("a", Open(_folder, Libc.O_PATH), false)]);
            case "block":
                string disk = Path.Combine(_folder, "disk");
                if (!File.Exists(disk))
                {
                    File.WriteAllBytes(disk, RandomNumberGenerator.GetBytes(1 << 20));
                }

                return new BlockDevice("blk0", Open(disk, Libc.O_RDWR), readOnly: false, "disk");
            default:
                return new PmemDevice("pmem0", Image(), 0x1_0020_0000);
        }
    }

    private FileImage Image()
    {
        string path = Path.Combine(_folder, "image");
        File.WriteAllBytes(path, new byte[4096]);
        using SafeFd fd = Open(path, Libc.O_RDONLY);
        return new FileImage(fd);
    }

    private static (int Queue, Segment[] Chain) Request(GuestDriver guest, string name)
    {
        ulong header = guest.Allocate(128), data = guest.Allocate(4096), status = guest.Allocate(64);
        Span<byte> bytes = guest.Span(header, 128);
        bytes.Clear();
        switch (name)
        {
            case "fs":
                // FUSE_INIT: its length, its opcode, and version 7.31.
                BitConverter.TryWriteBytes(bytes, 56u);
                BitConverter.TryWriteBytes(bytes[4..], 26u);
                BitConverter.TryWriteBytes(bytes[8..], 1ul);
                BitConverter.TryWriteBytes(bytes[40..], 7u);
                BitConverter.TryWriteBytes(bytes[44..], 31u);
                return (1, [new(header, 56, false), new(data, 4096, true)]);
            case "block":
                return (0, [new(header, 16, false), new(data, 4096, true), new(status, 1, true)]);
            case "mem":
                return (0, [new(header, 24, false), new(status, 10, true)]);
            case "pmem":
                return (0, [new(header, 4, false), new(status, 4, true)]);
            case "vsock":
                // A reset of a connection that is not there.
                BitConverter.TryWriteBytes(bytes, 3ul);
                BitConverter.TryWriteBytes(bytes[8..], 2ul);
                BitConverter.TryWriteBytes(bytes[28..], (ushort)1);
                BitConverter.TryWriteBytes(bytes[30..], (ushort)3);
                return (1, [new(header, 44, false)]);
            case "balloon":
                return (2, [new(data, 4096, true)]);
            case "console":
                return (1, [new(data, 100, false)]);
            default:
                return (0, [new(data, 64, true)]);
        }
    }

    private static bool Run(string program, params string[] arguments)
    {
        using Process process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardError = true })!;
        _ = process.StandardError.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode == 0;
    }

    private static SafeFd Open(string path, int flags) => SafeFd.From(Libc.openat(Libc.AT_FDCWD, path, flags | Libc.O_CLOEXEC, 0), "open", path);

    private sealed class Blocking : IRequestHandler, IDisposable
    {
        public ManualResetEventSlim Begun { get; } = new();

        public ManualResetEventSlim Go { get; } = new();

        public int Count { get; private set; }

        public volatile bool Throws;

        public uint Serve(Virtqueue queue, DescriptorChain chain)
        {
            Count++;
            Begun.Set();
            Go.Wait();
            return Throws ? throw new IOException("the host failed") : 0u;
        }

        public void Dispose()
        {
            Begun.Dispose();
            Go.Dispose();
        }
    }
}
