using MicroVm.Linux;

namespace MicroVm.Virtio.Mmio;

/// <summary>Connects eventfds with the guest: its writes signal them (ioeventfd), they raise its interrupts (irqfd).</summary>
public interface IEventRouting
{
    /// <summary>A 32-bit write of <paramref name="value"/> to <paramref name="gpa"/> signals <paramref name="fd"/> without an exit.</summary>
    /// <exception cref="LinuxException">The host refused.</exception>
    void AddIoEvent(ulong gpa, uint value, EventFd fd);

    /// <summary>Undoes <see cref="AddIoEvent"/>.</summary>
    void RemoveIoEvent(ulong gpa, uint value, EventFd fd);

    /// <summary>Signalling <paramref name="fd"/> raises the edge-triggered interrupt <paramref name="gsi"/>.</summary>
    /// <exception cref="LinuxException">The host refused.</exception>
    void AddInterrupt(uint gsi, EventFd fd);
}
