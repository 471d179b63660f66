using System.Buffers.Binary;
using MicroVm.Bus.Counters;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Virtio;

namespace MicroVm.Vmm.Devices.Pmem;

/// <summary>
/// virtio-pmem (virtio 1.2, 5.19): a file's pages as memory of the guest, beside its RAM. Read-only: the guest's writes
/// to it go nowhere, and a flush has nothing to do.
/// </summary>
/// <remarks>
/// A guest that mounts a file system on it with DAX runs programs from the host's page cache: nothing is copied, and all
/// VMs share the pages. The range is no RAM to the other devices, which refuse buffers in it.
/// </remarks>
public sealed partial class PmemDevice : VirtioDevice, ICounterSource, IRequestHandler
{
    private readonly FileImage _image;
    private RequestQueue? _queue;
    private long _flushes;
    private long _errors;

    /// <summary>Makes a device of <paramref name="image"/>, which is taken over.</summary>
    /// <param name="name">Name for logs and counters: "pmem0".</param>
    /// <param name="image">The pages.</param>
    /// <param name="gpa">Where the guest sees them: a multiple of <see cref="FileImage.Alignment"/>.</param>
    public PmemDevice(string name, FileImage image, ulong gpa)
    {
        ArgumentNullException.ThrowIfNull(image);
        ArgumentOutOfRangeException.ThrowIfNotEqual(gpa % FileImage.Alignment, 0ul, nameof(gpa));
        Name = name;
        Gpa = gpa;
        _image = image;
    }

    /// <inheritdoc/>
    public override uint DeviceId => 27;

    /// <inheritdoc/>
    public override string Name { get; }

    /// <inheritdoc/>
    public override ulong DeviceFeatures => 0;

    /// <inheritdoc/>
    public override ReadOnlySpan<ushort> QueueMaxSizes => [16];

    /// <summary>First guest physical address of the range.</summary>
    public ulong Gpa { get; }

    /// <summary>Length of the range in bytes.</summary>
    public ulong Length => _image.Length;

    /// <inheritdoc/>
    public override void ReadConfig(uint offset, Span<byte> data)
    {
        // 5.19.4: le64 start, le64 size.
        Span<byte> config = stackalloc byte[16];
        BinaryPrimitives.WriteUInt64LittleEndian(config, Gpa);
        BinaryPrimitives.WriteUInt64LittleEndian(config[8..], Length);
        CopyConfig(config, offset, data);
    }

    /// <inheritdoc/>
    /// <exception cref="InvalidOperationException">The driver did not set up the queue.</exception>
    public override void Activate(VirtioActivation activation)
    {
        ArgumentNullException.ThrowIfNull(activation);
        _queue = new RequestQueue(activation.Require(0), activation.Interrupt, activation.Loop, this);
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        _queue?.Dispose();
        _queue = null;
    }

    /// <inheritdoc/>
    public void CollectCounters(Action<string, long> add)
    {
        ArgumentNullException.ThrowIfNull(add);
        add(Name + ".flushes", Volatile.Read(ref _flushes));
        add(Name + ".errors", Volatile.Read(ref _errors));
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        Reset();
        _image.Dispose();
        base.Dispose();
    }

    uint IRequestHandler.Serve(Virtqueue queue, DescriptorChain chain)
    {
        if (chain.WritableLength < PmemRequest.Size)
        {
            // 5.19.6: without room for virtio_pmem_resp there is no way to answer.
            _ = queue.Break("a request without room for its answer (5.19.6)");
            return 0;
        }

        Span<byte> bytes = stackalloc byte[PmemRequest.Size];
        bool flush = chain.CopyFromReadable(0, bytes) == bytes.Length && BinaryPrimitives.ReadUInt32LittleEndian(bytes) == PmemRequest.Flush;
        if (flush)
        {
            _flushes++;
        }
        else
        {
            _errors++;
        }

        BinaryPrimitives.WriteUInt32LittleEndian(bytes, flush ? PmemRequest.Ok : PmemRequest.Failed);
        return (uint)chain.CopyToWritable(0, bytes);
    }
}
