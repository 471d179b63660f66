using System.Buffers.Binary;
using System.Collections.Concurrent;
using MicroVm.Linux;
using MicroVm.Memory;
using MicroVm.Virtio;
using MicroVm.VirtioFs.Dax;
using MicroVm.VirtioFs.Descriptors;
using MicroVm.VirtioFs.Exports;
using Xunit;

namespace MicroVm.VirtioFs.Tests;

/// <summary>
/// The guest's side of a virtio-fs device: RAM, two split queues in it, and a driver that puts requests there byte by
/// byte, so that tests decide on every length and descriptor.
/// </summary>
internal sealed class FsGuest : IVirtioInterrupt, IDisposable
{
    public const int HighPriority = 0;
    public const int Requests = 1;
    public const ulong WindowGpa = 0x1_0000_0000;
    private const ulong QueueArea = 0x10000;
    private const ulong DataArea = 0x100000;
    private const int MemorySize = 32 << 20;
    private readonly EventFd[] _kicks = [new(), new()];
    private readonly ushort[] _next = new ushort[2];
    private readonly EventLoop _loop = new();
    private readonly Lock[] _locks = [new(), new()];
    private readonly Virtqueue[] _queues;

    public FsGuest(params VirtioFsExport[] exports)
        : this(FdBudget.OfProcess, exports)
    {
    }

    public FsGuest(FdBudget budget, params VirtioFsExport[] exports)
        : this(budget, false, null, exports)
    {
    }

    public FsGuest(FdBudget budget, bool stripSetId, params VirtioFsExport[] exports)
        : this(budget, stripSetId, null, exports)
    {
    }

    // The channel is taken over.
    public FsGuest(SafeFd sockets, params VirtioFsExport[] exports)
        : this(FdBudget.OfProcess, false, null, sockets, exports)
    {
    }

    // The window is taken over, and is at WindowGpa.
    public FsGuest(FdBudget budget, bool stripSetId, DaxWindow? window, params VirtioFsExport[] exports)
        : this(budget, stripSetId, window, null, exports)
    {
    }

    private FsGuest(FdBudget budget, bool stripSetId, DaxWindow? window, SafeFd? sockets, VirtioFsExport[] exports)
    {
        if (window is not null)
        {
            Memory.AddWindow(WindowGpa, window.Length, window.Address);
        }

        Device = new VirtioFsDevice("test", exports, budget, stripSetId: stripSetId, window: window, windowGpa: WindowGpa, sockets: sockets);
        _queues = [Queue(HighPriority), Queue(Requests)];
        Start();
    }

    public VirtioFsDevice Device { get; }

    public GuestMemory Memory { get; } = GuestMemory.Create(MemorySize);

    public ConcurrentQueue<string> Failures { get; } = new();

    public int Interrupts { get; private set; }

    /// <summary>Requests that were offered and are not waited for.</summary>
    public int Waiting { get; set; }

    public static ulong DescriptorTable(int queue) => QueueArea + ((ulong)queue * 0x10000);

    public static ulong AvailableRing(int queue) => DescriptorTable(queue) + 0x4000;

    public static ulong UsedRing(int queue) => DescriptorTable(queue) + 0x8000;

    public void Start() => Device.Activate(new VirtioActivation(Memory, [.. _queues], 0, this, _loop));

    /// <summary>Sends the segments as one chain and waits for it to come back.</summary>
    /// <returns>The used ring's length, and all writable bytes one after the other.</returns>
    public (uint Written, byte[] Reply) Send(int queue, IReadOnlyList<byte[]> readable, IReadOnlyList<int> writable)
    {
        lock (_locks[queue])
        {
            ulong at = DataArea + ((ulong)queue * (MemorySize / 2));
            List<(ulong Gpa, int Length)> replies = [];
            int count = readable.Count + writable.Count;
            for (int i = 0; i < count; i++)
            {
                bool write = i >= readable.Count;
                int length = write ? writable[i - readable.Count] : readable[i].Length;
                if (write)
                {
                    Assert.True(Memory.TryWrite(at, new byte[length]));
                    replies.Add((at, length));
                }
                else
                {
                    Assert.True(Memory.TryWrite(at, readable[i]));
                }

                int flags = (write ? Descriptor.FlagWrite : 0) | (i + 1 < count ? Descriptor.FlagNext : 0);
                PutDescriptor(queue, i, at, (uint)length, (ushort)flags, (ushort)(i + 1));
                at += (ulong)length + 7;
            }

            uint written = Submit(queue, 0);
            byte[] all = new byte[replies.Sum(r => r.Length)];
            int offset = 0;
            foreach ((ulong gpa, int length) in replies)
            {
                Assert.True(Memory.TryRead(gpa, all.AsSpan(offset, length)));
                offset += length;
            }

            return (written, all);
        }
    }

    public void PutDescriptor(int queue, int index, ulong gpa, uint length, ushort flags, ushort next)
    {
        Span<byte> d = stackalloc byte[Descriptor.Size];
        BinaryPrimitives.WriteUInt64LittleEndian(d, gpa);
        BinaryPrimitives.WriteUInt32LittleEndian(d[8..], length);
        BinaryPrimitives.WriteUInt16LittleEndian(d[12..], flags);
        BinaryPrimitives.WriteUInt16LittleEndian(d[14..], next);
        Assert.True(Memory.TryWrite(DescriptorTable(queue) + ((ulong)index * Descriptor.Size), d));
    }

    /// <summary>Makes descriptor <paramref name="head"/> available and waits for it; the used length.</summary>
    public uint Submit(int queue, ushort head)
    {
        Offer(queue, head);
        ushort wanted = (ushort)(_next[queue] - (queue == Requests ? Waiting : 0));
        ushort slot = (ushort)((wanted - 1) & (_queues[queue].Size - 1));
        SpinWait spin = default;
        long deadline = Environment.TickCount64 + 60_000;
        while (true)
        {
            Thread.MemoryBarrier();
            Assert.True(Memory.TryRead(UsedRing(queue) + 2, out ushort used));
            if ((ushort)(used - wanted) <= _queues[queue].Size)
            {
                break;
            }

            Assert.True(Failures.IsEmpty, string.Join("; ", Failures));
            Assert.True(Environment.TickCount64 < deadline, "the request did not come back within a minute");
            spin.SpinOnce();
        }

        Assert.True(Memory.TryRead(UsedRing(queue) + 4 + (8ul * slot), out uint id));
        Assert.True(Memory.TryRead(UsedRing(queue) + 8 + (8ul * slot), out uint length));
        Assert.Equal(head, id);
        return length;
    }

    /// <summary>Whether all that was offered has come back.</summary>
    public bool IsIdle(int queue) => Memory.TryRead(UsedRing(queue) + 2, out ushort used) && used == _next[queue];

    /// <summary>Makes a descriptor available and kicks, without waiting.</summary>
    public void Offer(int queue, ushort head)
    {
        Assert.True(Memory.TryWrite(AvailableRing(queue) + 4 + (2ul * (uint)(_next[queue] & (_queues[queue].Size - 1))), head));
        _next[queue]++;
        Thread.MemoryBarrier();
        Assert.True(Memory.TryWrite(AvailableRing(queue) + 2, _next[queue]));
        _kicks[queue].Signal();
    }

    public void SignalUsed() => Interrupts++;

    public void SignalConfigChange()
    {
    }

    public void SignalNeedsReset(string reason) => Failures.Enqueue(reason);

    public void Dispose()
    {
        Device.Dispose();
        Memory.Dispose();
        _loop.Dispose();
        Array.ForEach(_kicks, k => k.Dispose());
    }

    private Virtqueue Queue(int index)
    {
        ushort size = Device.QueueMaxSizes[index];
        VirtqueueLayout layout = new(size, DescriptorTable(index), AvailableRing(index), UsedRing(index));
        Virtqueue? queue = Virtqueue.TryCreate(Memory, layout, size, index, eventIndex: false, indirect: false, _kicks[index], out string? reason);
        Assert.Null(reason);
        queue!.TakesWindowBuffers = Device.TakesWindowBuffers;
        return queue;
    }
}
