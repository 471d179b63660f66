using System.Runtime.InteropServices;
using System.Text;
using MicroVm.Bus.Counters;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Virtio;

namespace MicroVm.Vmm.Devices.Block;

/// <summary>
/// virtio-blk (virtio 1.2, 5.2) on a file or block device. A thread of its own serves the queue, since disk I/O blocks;
/// data moves between the file and guest RAM without a copy.
/// </summary>
public sealed partial class BlockDevice : VirtioDevice, ICounterSource
{
    /// <summary>Bytes of the id that the guest reads (VIRTIO_BLK_ID_BYTES).</summary>
    public const int MaxIdBytes = 20;

    private const ushort QueueSize = 128;
    private const uint BlockSize = 512;
    private readonly BlockBackend _backend;
    private readonly BlockCounters _counters = new();
    private readonly BlockRequests _requests;
    private readonly BlockConfigSpace _config;
    private readonly BlockWorker _worker;

    /// <summary>Makes a disk of <paramref name="file"/>.</summary>
    /// <param name="name">Name for logs and counters: "blk0".</param>
    /// <param name="file">The image or block device, opened for reading, and for writing unless read-only; taken over.</param>
    /// <param name="readOnly">Refuse writes, by feature bit and by check.</param>
    /// <param name="id">Serial number that the guest reads: at most 20 ASCII bytes.</param>
    /// <exception cref="LinuxException">The file's size cannot be told.</exception>
    /// <exception cref="ArgumentException">The id is too long, or the file is neither a regular one nor a block device.</exception>
    public BlockDevice(string name, SafeFd file, bool readOnly, string id)
    {
        ArgumentNullException.ThrowIfNull(file);
        ArgumentNullException.ThrowIfNull(id);
        if (id.Length > MaxIdBytes || !Ascii.IsValid(id))
        {
            throw new ArgumentException($"disk {name}: the id \"{id}\" is not up to {MaxIdBytes} ASCII characters.");
        }

        Name = name;
        _backend = new BlockBackend(name, file);
        byte[] idBytes = new byte[MaxIdBytes];
        Encoding.ASCII.GetBytes(id, idBytes);
        _requests = new BlockRequests(_backend, idBytes, readOnly, _counters);
        _worker = new BlockWorker(name, _requests);
        DeviceFeatures = BlockFeature.SizeMax | BlockFeature.SegMax | BlockFeature.BlockSize | BlockFeature.Flush
            | (readOnly ? BlockFeature.ReadOnly : BlockFeature.Discard | BlockFeature.WriteZeroes);
        _config = new BlockConfigSpace
        {
            Capacity = _backend.Sectors,
            SizeMax = BlockRequests.MaxSegmentBytes,
            SegMax = BlockRequests.MaxSegments,
            BlockSize = BlockSize,
            NumQueues = 1,
            MaxDiscardSectors = BlockRequests.MaxDiscardSectors,
            MaxDiscardSeg = BlockRequests.MaxDiscardRanges,
            DiscardSectorAlignment = 1,
            MaxWriteZeroesSectors = BlockRequests.MaxWriteZeroesSectors,
            MaxWriteZeroesSeg = 1,
            WriteZeroesMayUnmap = 1,
        };
    }

    /// <inheritdoc/>
    public override uint DeviceId => 2;

    /// <inheritdoc/>
    public override string Name { get; }

    /// <inheritdoc/>
    public override ulong DeviceFeatures { get; }

    /// <inheritdoc/>
    public override ReadOnlySpan<ushort> QueueMaxSizes => [QueueSize];

    /// <inheritdoc/>
    public override void ReadConfig(uint offset, Span<byte> data) =>
        CopyConfig(MemoryMarshal.AsBytes(new ReadOnlySpan<BlockConfigSpace>(in _config)), offset, data);

    /// <inheritdoc/>
    /// <exception cref="InvalidOperationException">The driver did not set up the queue.</exception>
    public override void Activate(VirtioActivation activation)
    {
        ArgumentNullException.ThrowIfNull(activation);
        _requests.WriteThrough = (activation.DriverFeatures & BlockFeature.Flush) == 0;
        _worker.Serve(activation.Require(0), activation.Interrupt);
    }

    /// <inheritdoc/>
    public override void StartThreads() => _worker.Thread.Start();

    /// <inheritdoc/>
    public override void NarrowThreads() => _worker.Thread.Narrow();

    /// <inheritdoc/>
    public override bool TryPark(int milliseconds) => _worker.TryPark(milliseconds);

    /// <inheritdoc/>
    public override void Reset() => _ = TryPark(Timeout.Infinite);

    /// <inheritdoc/>
    public void CollectCounters(Action<string, long> add)
    {
        ArgumentNullException.ThrowIfNull(add);
        _counters.Collect(Name, add);
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        Reset();
        _worker.Dispose();
        _backend.Dispose();
        base.Dispose();
    }
}
