using MicroVm.Linux;
using MicroVm.Memory;

namespace MicroVm.Virtio.Mmio;

/// <summary>A device between DRIVER_OK and reset: whether it serves its queues, and how it begins and ends to. Guarded by the transport's lock.</summary>
internal sealed class ServedDevice(VirtioDevice device, GuestMemory memory, EventLoop loop, MmioQueues queues, InterruptLine interrupt)
{
    /// <summary>True from a successful <see cref="TryStart"/> to the next <see cref="TryStop"/>.</summary>
    public bool IsActive { get; private set; }

    /// <summary>Makes the queues and has the device serve them.</summary>
    /// <param name="features">What the driver accepts.</param>
    /// <param name="driver">The device's way to its driver.</param>
    /// <param name="positions">Where the queues stand; null for their start.</param>
    /// <returns>Why the device cannot start; null when it did.</returns>
    public string? TryStart(DriverFeatures features, IVirtioInterrupt driver, ushort[]? positions)
    {
        try
        {
            if (queues.TryMake(memory, features, device.TakesWindowBuffers, out Virtqueue?[] made) is { } reason)
            {
                return reason;
            }

            interrupt.Connect();
            queues.Use(made, positions);
            loop.Invoke(() => device.Activate(new VirtioActivation(memory, made, features.Accepted, driver, loop)));
            IsActive = true;
        }
        catch (Exception e) when (e is IOException or InvalidOperationException or ArgumentException)
        {
            queues.RemoveSignals();
            return e.Message;
        }

        interrupt.SignalPending();

        // Some drivers fill and kick their queues before DRIVER_OK; nobody was listening then.
        queues.KickAll();
        return null;
    }

    /// <summary>Has the device stop using the queues; nothing is done when it does not serve any.</summary>
    /// <returns>What the device reported; null when it stopped as it should.</returns>
    public string? TryStop()
    {
        if (!IsActive)
        {
            return null;
        }

        IsActive = false;
        queues.RemoveSignals();
        try
        {
            // The vCPU waits for requests that are under way, so that the event loop need not.
            _ = device.TryPark(Timeout.Infinite);
            loop.Invoke(device.Reset);
            return null;
        }
        catch (Exception e) when (e is IOException or InvalidOperationException or ArgumentException)
        {
            return e.Message;
        }
    }
}
