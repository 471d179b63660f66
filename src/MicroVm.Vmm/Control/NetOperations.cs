using MicroVm.Linux;
using MicroVm.Virtio;
using MicroVm.Virtio.Mmio;
using MicroVm.Vmm.Devices.Net;
using MicroVm.Vmm.Machine;
using MicroVm.VmmControl;

namespace MicroVm.Vmm.Control;

/// <summary>Requests that concern network interfaces. Device thread only.</summary>
internal static class NetOperations
{
    /// <summary>AttachNet: the interface comes to the window with the request's index.</summary>
    public static ControlResponse Attach(VirtualMachine machine, ControlRequest request, Func<SafeFd?> takeFd)
    {
        List<SafeFd> taps = [];
        while (takeFd() is { } fd)
        {
            taps.Add(fd);
        }

        string? problem = request.Interface is not { } settings ? "\"interface\" is missing"
            : Find(machine, request.Index) is not { } device ? $"there is no window {request.Index}"
            : NetFactory.Attach(device, [.. taps], settings);
        if (problem is null)
        {
            return new ControlResponse();
        }

        taps.ForEach(t => t.Dispose());
        return new ControlResponse { Error = $"attachNet: {problem}" };
    }

    /// <summary>SetNetLink.</summary>
    public static ControlResponse SetLink(VirtualMachine machine, ControlRequest request)
    {
        if (Find(machine, request.Index) is not { IsAttached: true } device)
        {
            return new ControlResponse { Error = $"setNetLink: there is no interface {request.Index}" };
        }

        try
        {
            if (request.Mac is not null || request.Mtu is not null)
            {
                FrameRules now = device.Rules;
                device.Change(request.Mac is null ? now.Source : NetFactory.ParseMac(request.Mac), request.Mtu ?? now.Mtu);
            }
        }
        catch (ArgumentException e)
        {
            return new ControlResponse { Error = $"setNetLink: {e.Message}" };
        }

        device.SetLink(request.Up);
        return new ControlResponse();
    }

    /// <summary>DetachNet: refused while the guest's driver holds the device.</summary>
    public static ControlResponse Detach(VirtualMachine machine, ControlRequest request)
    {
        if (FindTransport(machine, request.Index) is not { Device: NetDevice { IsAttached: true } device } transport)
        {
            return new ControlResponse { Error = $"detachNet: there is no interface {request.Index}" };
        }

        // A bus whose driver let go acknowledges the device again.
        if ((transport.Status & ~VirtioStatus.Acknowledge) != 0)
        {
            return new ControlResponse { Error = $"detachNet: the guest's driver is bound to {device.Name}" };
        }

        device.Detach();
        return new ControlResponse();
    }

    private static NetDevice? Find(VirtualMachine machine, int index) => FindTransport(machine, index)?.Device as NetDevice;

    private static MmioTransport? FindTransport(VirtualMachine machine, int index)
    {
        foreach (MmioTransport transport in machine.Transports)
        {
            if (transport.Device is NetDevice && index-- == 0)
            {
                return transport;
            }
        }

        return null;
    }
}
