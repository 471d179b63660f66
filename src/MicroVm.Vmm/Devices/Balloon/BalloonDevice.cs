using System.Buffers.Binary;
using System.Runtime.InteropServices;
using MicroVm.Bus.Counters;
using MicroVm.Jail;
using MicroVm.Virtio;
using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Vmm.Devices.Balloon;

/// <summary>
/// virtio-balloon (virtio 1.2, 5.5) for free page reporting: what the guest frees goes back to the host a few seconds later. It asks for
/// no pages itself; a driver that inflates the balloon all the same is taken at its word.
/// </summary>
/// <remarks>
/// A thread of its own serves the queues: giving gigabytes back takes the host's kernel a while. The balloon holds no state between two
/// requests. Queues are numbered as drivers do that find two queues of features missing (5.5.2): inflate, deflate, reporting.
/// </remarks>
public sealed class BalloonDevice : VirtioDevice, ICounterSource
{
    private const int InflateQueue = 0;
    private const int DeflateQueue = 1;
    private const int ReportingQueue = 2;

    /// <summary>Linux reports up to 32 blocks at once (PAGE_REPORTING_CAPACITY), and takes no smaller queue.</summary>
    private const ushort ReportingQueueSize = 32;

    private readonly BalloonCounters _counters = new();
    private readonly DeviceThread _thread = new("balloon", ThreadKind.Memory);
    private readonly List<RequestQueue> _queues = [];
    private uint _actual;

    /// <inheritdoc/>
    public override uint DeviceId => 5;

    /// <inheritdoc/>
    public override string Name => "balloon";

    /// <inheritdoc/>
    public override ulong DeviceFeatures => BalloonFeature.Reporting;

    /// <inheritdoc/>
    public override ReadOnlySpan<ushort> QueueMaxSizes => [16, 16, ReportingQueueSize];

    /// <inheritdoc/>
    public override void ReadConfig(uint offset, Span<byte> data)
    {
        BalloonConfigSpace config = new() { Actual = Volatile.Read(ref _actual) };
        CopyConfig(MemoryMarshal.AsBytes(new ReadOnlySpan<BalloonConfigSpace>(in config)), offset, data);
    }

    /// <inheritdoc/>
    public override void WriteConfig(uint offset, ReadOnlySpan<byte> data)
    {
        if (offset == BalloonConfigSpace.ActualOffset && data.Length == sizeof(uint))
        {
            Volatile.Write(ref _actual, BinaryPrimitives.ReadUInt32LittleEndian(data));
        }
    }

    /// <inheritdoc/>
    public override string? WhyNotSaved => null;

    /// <inheritdoc/>
    public override void SaveState(StateWriter writer)
    {
        ArgumentNullException.ThrowIfNull(writer);
        writer.Write(Volatile.Read(ref _actual));
    }

    /// <inheritdoc/>
    public override void RestoreState(StateReader reader)
    {
        ArgumentNullException.ThrowIfNull(reader);
        Volatile.Write(ref _actual, reader.Read<uint>());
    }

    /// <inheritdoc/>
    /// <exception cref="InvalidOperationException">The driver did not set up the queues that every balloon has.</exception>
    public override void Activate(VirtioActivation activation)
    {
        ArgumentNullException.ThrowIfNull(activation);
        BalloonRequests requests = new(activation.Memory, _counters);
        Virtqueue inflate = activation.Require(InflateQueue), deflate = activation.Require(DeflateQueue);
        Virtqueue? reporting = (activation.DriverFeatures & BalloonFeature.Reporting) != 0 ? activation.Require(ReportingQueue) : null;
        _thread.Serve(activation.Interrupt, () =>
        {
            Serve(inflate, new InflateHandler(requests), activation.Interrupt);
            Serve(deflate, new DeflateHandler(requests), activation.Interrupt);
            if (reporting is not null)
            {
                Serve(reporting, new ReportHandler(requests), activation.Interrupt);
            }
        });
    }

    /// <inheritdoc/>
    public override void StartThreads() => _thread.Start();

    /// <inheritdoc/>
    public override void NarrowThreads() => _thread.Narrow();

    /// <inheritdoc/>
    public override bool TryPark(int milliseconds) => _thread.TryPark(
        () =>
        {
            _queues.ForEach(q => q.Dispose());
            _queues.Clear();
        },
        milliseconds);

    /// <inheritdoc/>
    public override void Reset()
    {
        _ = TryPark(Timeout.Infinite);
        Volatile.Write(ref _actual, 0);
    }

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
        _thread.Dispose();
        base.Dispose();
    }

    private void Serve(Virtqueue queue, IRequestHandler handler, IVirtioInterrupt interrupt) =>
        _queues.Add(new RequestQueue(queue, interrupt, _thread, handler, RequestPolicy.Default));

    private sealed class InflateHandler(BalloonRequests requests) : IRequestHandler
    {
        public uint Serve(Virtqueue queue, DescriptorChain chain)
        {
            if (!requests.TryInflate(chain, out string broken))
            {
                _ = queue.Break(broken);
            }

            return 0;
        }
    }

    private sealed class DeflateHandler(BalloonRequests requests) : IRequestHandler
    {
        public uint Serve(Virtqueue queue, DescriptorChain chain)
        {
            requests.Deflate();
            return 0;
        }
    }

    private sealed class ReportHandler(BalloonRequests requests) : IRequestHandler
    {
        public uint Serve(Virtqueue queue, DescriptorChain chain)
        {
            requests.Report(chain);
            return 0;
        }
    }
}
