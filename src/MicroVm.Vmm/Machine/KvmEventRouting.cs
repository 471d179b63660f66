using MicroVm.Kvm;
using MicroVm.Linux;
using MicroVm.Virtio.Mmio;

namespace MicroVm.Vmm.Machine;

/// <summary>Registers eventfds with KVM (KVM_IOEVENTFD, KVM_IRQFD).</summary>
internal sealed class KvmEventRouting(KvmVm vm) : IEventRouting
{
    private const uint RegisterWidth = 4;

    /// <inheritdoc/>
    public void AddIoEvent(ulong gpa, uint value, EventFd fd) => vm.AssignIoEventFd(fd, gpa, RegisterWidth, value);

    /// <inheritdoc/>
    public void RemoveIoEvent(ulong gpa, uint value, EventFd fd) => vm.DeassignIoEventFd(fd, gpa, RegisterWidth, value);

    /// <inheritdoc/>
    public void AddInterrupt(uint gsi, EventFd fd) => vm.AssignIrqFd(fd, gsi);
}
