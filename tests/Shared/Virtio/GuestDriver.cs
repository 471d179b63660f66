using System.Diagnostics;
using MicroVm.Linux;
using MicroVm.Memory;
using MicroVm.Virtio;

namespace MicroVm.Tests.Shared.Virtio;

/// <summary>
/// Plays the guest for a device model in this process: lays virtqueues out in real guest memory, adds chains, kicks, and
/// reads the used ring, as a driver does. Owns the device, the memory and, unless it is given one, the loop.
/// </summary>
public sealed class GuestDriver : IDisposable, IVirtioInterrupt
{
    private const ulong FirstFree = 0x10_0000;
    private readonly bool _ownsLoop;
    private ulong _next = FirstFree;
    private int _usedInterrupts;
    private int _configInterrupts;
    private volatile string? _needsReset;

    /// <summary>Makes memory and queues for <paramref name="device"/>; <see cref="Activate"/> starts it.</summary>
    public GuestDriver(
        VirtioDevice device, EventLoop? loop = null, bool eventIndex = true, bool indirect = true, ulong memory = 32 << 20,
        ulong? features = null, int queueSize = int.MaxValue)
    {
        Device = device;
        _ownsLoop = loop is null;
        Loop = loop ?? new EventLoop();
        Memory = GuestMemory.Create(memory);
        Features = features ?? device.DeviceFeatures;
        ReadOnlySpan<ushort> sizes = device.QueueMaxSizes;
        Queues = new DriverQueue[sizes.Length];
        for (int i = 0; i < sizes.Length; i++)
        {
            Queues[i] = new DriverQueue(this, i, (ushort)Math.Min(sizes[i], queueSize), eventIndex, indirect);
        }
    }

    /// <summary>The device under test.</summary>
    public VirtioDevice Device { get; }

    /// <summary>The device thread's loop, turned by the test.</summary>
    public EventLoop Loop { get; }

    /// <summary>Guest RAM.</summary>
    public GuestMemory Memory { get; }

    /// <summary>The device feature bits that the driver accepts.</summary>
    public ulong Features { get; }

    /// <summary>The queues by number.</summary>
    public DriverQueue[] Queues { get; }

    /// <summary>Used-buffer interrupts so far.</summary>
    public int UsedInterrupts => Volatile.Read(ref _usedInterrupts);

    /// <summary>Configuration interrupts so far.</summary>
    public int ConfigInterrupts => Volatile.Read(ref _configInterrupts);

    /// <summary>Why the device wants to be reset; null when it does not.</summary>
    public string? NeedsReset => _needsReset;

    /// <summary>DRIVER_OK, with the queues as they lie in memory.</summary>
    public void Activate()
    {
        Virtqueue?[] queues = [.. Queues.Select(q => q.MakeDeviceSide())];
        Device.Activate(new VirtioActivation(Memory, queues, Features, this, Loop));
    }

    /// <summary>Resets the device, and makes the queues as new.</summary>
    public void Reset()
    {
        Device.Reset();
        _needsReset = null;
        foreach (DriverQueue queue in Queues)
        {
            queue.Clear();
        }
    }

    /// <summary>Turns the loop until it has nothing to do.</summary>
    public void Turn()
    {
        while (Loop.RunOnce(0) > 0)
        {
        }
    }

    /// <summary>Turns the loop until <paramref name="condition"/> holds; fails after ten seconds.</summary>
    public void TurnUntil(Func<bool> condition, string what)
    {
        Stopwatch time = Stopwatch.StartNew();
        while (!condition())
        {
            Loop.RunOnce(10);
            if (time.Elapsed > TimeSpan.FromSeconds(10))
            {
                throw new TimeoutException($"did not happen: {what}; device: {NeedsReset ?? "fine"}");
            }
        }
    }

    /// <summary>Takes guest memory that is not used otherwise.</summary>
    public ulong Allocate(ulong length, ulong alignment = 64)
    {
        ulong at = (_next + alignment - 1) & ~(alignment - 1);
        _next = at + length;
        return _next <= Memory.Size ? at : throw new InvalidOperationException("the guest double has no memory left");
    }

    /// <summary>A view of guest memory.</summary>
    public Span<byte> Span(ulong gpa, int length) =>
        Memory.TryGetSpan(gpa, (ulong)length, out Span<byte> span) ? span : throw new ArgumentOutOfRangeException(nameof(gpa));

    /// <inheritdoc/>
    public void SignalUsed() => Interlocked.Increment(ref _usedInterrupts);

    /// <inheritdoc/>
    public void SignalConfigChange() => Interlocked.Increment(ref _configInterrupts);

    /// <inheritdoc/>
    public void SignalNeedsReset(string reason) => _needsReset ??= reason;

    /// <inheritdoc/>
    public void Dispose()
    {
        // While the loop and the memory that it uses are still there.
        Device.Dispose();
        foreach (DriverQueue queue in Queues)
        {
            queue.Dispose();
        }

        Memory.Dispose();
        if (_ownsLoop)
        {
            Loop.Dispose();
        }
    }
}
