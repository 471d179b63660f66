using MicroVm.Linux;
using MicroVm.Vmm.Devices.Net;
using MicroVm.Vmm.Machine;
using MicroVm.Vmm.Virtio.Mmio;
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

        device.SetLink(request.Up);
        return new ControlResponse();
    }

    private static NetDevice? Find(VirtualMachine machine, int index)
    {
        foreach (MmioTransport transport in machine.Transports)
        {
            if (transport.Device is NetDevice net && index-- == 0)
            {
                return net;
            }
        }

        return null;
    }
}
