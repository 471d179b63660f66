using MicroVm.Linux;
using MicroVm.Virtio.Mmio;
using Xunit;

namespace MicroVm.Tests.Shared;

/// <summary>Remembers what a device registered, and plays KVM: a register write that matches signals its eventfd.</summary>
internal sealed class FakeRouting : IEventRouting
{
    public Dictionary<(ulong Gpa, uint Value), EventFd> IoEvents { get; } = [];

    public Dictionary<uint, EventFd> Interrupts { get; } = [];

    public void AddIoEvent(ulong gpa, uint value, EventFd fd) => IoEvents.Add((gpa, value), fd);

    public void RemoveIoEvent(ulong gpa, uint value, EventFd fd)
    {
        Assert.Same(IoEvents[(gpa, value)], fd);
        IoEvents.Remove((gpa, value));
    }

    public void AddInterrupt(uint gsi, EventFd fd) => Interrupts.Add(gsi, fd);
}
