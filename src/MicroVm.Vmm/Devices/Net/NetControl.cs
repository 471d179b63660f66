using System.Buffers.Binary;
using MicroVm.Virtio;

namespace MicroVm.Vmm.Devices.Net;

/// <summary>The control queue (virtio 1.2, 5.1.6.5): commands one by one, each answered by a byte. Device thread.</summary>
internal sealed class NetControl : IRequestHandler, IDisposable
{
    private const byte Ok = 0;
    private const byte Error = 1;
    private const int HeaderLength = 2;
    private readonly RequestQueue _queue;
    private readonly VirtioActivation _activation;
    private readonly NetDevice _device;
    private DescriptorChain _chain = null!;

    /// <summary>Serves the queue.</summary>
    public NetControl(Virtqueue queue, VirtioActivation activation, NetDevice device)
    {
        _activation = activation;
        _device = device;
        _queue = new RequestQueue(queue, activation.Interrupt, activation.Loop, this, NetLimits.MaxSegments);
    }

    /// <inheritdoc/>
    public void Dispose() => _queue.Dispose();

    uint IRequestHandler.Serve(Virtqueue queue, DescriptorChain chain)
    {
        if (chain.WritableLength == 0)
        {
            _ = queue.Break("a control command without room for its answer (5.1.6.5)");
            return 0;
        }

        _chain = chain;
        byte answer = Execute() ? Ok : Error;
        if (answer == Error)
        {
            _device.Counters.ControlRefused++;
        }

        return (uint)chain.CopyToWritable(0, [answer]);
    }

    private bool Has(ulong feature) => (_activation.DriverFeatures & feature) != 0;

    private bool Execute()
    {
        Span<byte> header = stackalloc byte[HeaderLength];
        if (_chain.CopyFromReadable(0, header) != HeaderLength)
        {
            return false;
        }

        return (header[0], header[1]) switch
        {
            (0, 0 or 1) => Has(NetFeature.CtrlRx) && SetMode(header[1]),
            (0, <= 5) => Has(NetFeature.CtrlRxExtra) && SetMode(header[1]),
            (1, 0) => Has(NetFeature.CtrlRx) && SetAddressTable(),
            (1, 1) => Has(NetFeature.CtrlMacAddr) && SetAddress(),
            (2, 0 or 1) => Has(NetFeature.CtrlVlan) && SetVlan(add: header[1] == 0),
            (4, 0) => Has(NetFeature.Mq) && SetPairs(),
            (5, 0) => Has(NetFeature.CtrlGuestOffloads) && SetOffloads(),
            _ => false,
        };
    }

    private bool TryRead(Span<byte> data) => _chain.CopyFromReadable(HeaderLength, data) == data.Length;

    private bool SetMode(byte command)
    {
        Span<byte> value = stackalloc byte[1];
        if (!TryRead(value))
        {
            return false;
        }

        bool on = value[0] != 0;
        ReceiveFilter filter = _device.Filter;
        _device.Filter = command switch
        {
            0 => filter with { Promiscuous = on },
            1 => filter with { AllMulticast = on },
            2 => filter with { AllUnicast = on },
            3 => filter with { NoMulticast = on },
            4 => filter with { NoUnicast = on },
            _ => filter with { NoBroadcast = on },
        };
        return true;
    }

    private bool SetAddressTable()
    {
        ulong at = HeaderLength;
        if (!TryReadTable(ref at, out MacAddress[] unicast, out bool allUnicast) || !TryReadTable(ref at, out MacAddress[] multicast, out bool allMulticast))
        {
            return false;
        }

        _device.Filter = _device.Filter with
        {
            Unicast = unicast,
            AllUnicast = allUnicast,
            Multicast = multicast,
            AllMulticast = allMulticast,
        };
        return true;
    }

    private bool TryReadTable(ref ulong at, out MacAddress[] addresses, out bool all)
    {
        addresses = [];
        all = false;
        Span<byte> count = stackalloc byte[sizeof(uint)];
        if (_chain.CopyFromReadable(at, count) != count.Length)
        {
            return false;
        }

        at += (ulong)count.Length;
        uint n = BinaryPrimitives.ReadUInt32LittleEndian(count);
        if ((ulong)n * MacAddress.Length > _chain.ReadableLength - at)
        {
            return false;
        }

        all = n > ReceiveFilter.MaxAddresses;
        addresses = new MacAddress[all ? 0 : n];
        Span<byte> bytes = stackalloc byte[MacAddress.Length];
        for (int i = 0; i < addresses.Length; i++)
        {
            _ = _chain.CopyFromReadable(at + ((ulong)i * MacAddress.Length), bytes);
            addresses[i] = MacAddress.Read(bytes);
        }

        at += (ulong)n * MacAddress.Length;
        return true;
    }

    // The host decides on the address, as frames from any other are not let out: the driver may only confirm it.
    private bool SetAddress()
    {
        Span<byte> bytes = stackalloc byte[MacAddress.Length];
        return TryRead(bytes) && MacAddress.Read(bytes) == _device.Filter.Own;
    }

    private bool SetVlan(bool add)
    {
        Span<byte> bytes = stackalloc byte[sizeof(ushort)];
        int id = TryRead(bytes) ? BinaryPrimitives.ReadUInt16LittleEndian(bytes) : -1;
        if (id is < 0 or > 4095)
        {
            return false;
        }

        ulong[] vlans = [.. _device.Filter.Vlans ?? new ulong[64]];
        ulong bit = 1ul << (id % 64);
        vlans[id / 64] = add ? vlans[id / 64] | bit : vlans[id / 64] & ~bit;
        _device.Filter = _device.Filter with { Vlans = vlans };
        return true;
    }

    private bool SetPairs()
    {
        Span<byte> bytes = stackalloc byte[sizeof(ushort)];
        return TryRead(bytes) && _device.TryUsePairs(BinaryPrimitives.ReadUInt16LittleEndian(bytes));
    }

    private bool SetOffloads()
    {
        Span<byte> bytes = stackalloc byte[sizeof(ulong)];
        if (!TryRead(bytes))
        {
            return false;
        }

        // 5.1.6.5.6.1: only what was negotiated may be switched.
        ulong offloads = BinaryPrimitives.ReadUInt64LittleEndian(bytes);
        return (offloads & ~(_activation.DriverFeatures & NetFeature.GuestOffloads)) == 0 && _device.TrySetOffloads(offloads);
    }
}
