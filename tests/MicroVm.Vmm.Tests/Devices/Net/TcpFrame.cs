using System.Buffers.Binary;
using MicroVm.Tests.Shared.Virtio;
using MicroVm.Vmm.Devices.Net;

namespace MicroVm.Vmm.Tests.Devices.Net;

/// <summary>Frames and virtio-net headers, right ones to be spoilt.</summary>
internal static class TcpFrame
{
    public static byte[] Header(NetGso gso, ushort size, ushort transport, byte flags = 1, ushort offset = 16) =>
        Header(flags, (byte)gso, 0, size, transport, offset);

    public static byte[] Header(byte flags, byte gso, ushort headerLength, ushort size, ushort start, ushort offset)
    {
        byte[] header = new byte[12];
        header[0] = flags;
        header[1] = gso;
        BinaryPrimitives.WriteUInt16LittleEndian(header.AsSpan(2), headerLength);
        BinaryPrimitives.WriteUInt16LittleEndian(header.AsSpan(4), size);
        BinaryPrimitives.WriteUInt16LittleEndian(header.AsSpan(6), start);
        BinaryPrimitives.WriteUInt16LittleEndian(header.AsSpan(8), offset);
        return header;
    }

    /// <summary>Ethernet, IPv4, and TCP or UDP.</summary>
    public static byte[] Ipv4(int payload, byte protocol = 6)
    {
        int transport = protocol == 6 ? 20 : 8;
        byte[] frame = NetGuest.Frame(34 + transport + payload, type: 0x0800);
        Span<byte> ip = frame.AsSpan(14);
        ip[..20].Clear();
        ip[0] = 0x45;
        BinaryPrimitives.WriteUInt16BigEndian(ip[2..], (ushort)(frame.Length - 14));
        ip[8] = 64;
        ip[9] = protocol;
        ip[12] = ip[16] = 10;
        ip[15] = 1;
        ip[19] = 2;
        Transport(frame.AsSpan(34), protocol);
        return frame;
    }

    /// <summary>Ethernet, IPv6, and TCP or UDP.</summary>
    public static byte[] Ipv6(int payload, byte protocol = 6)
    {
        int transport = protocol == 6 ? 20 : 8;
        byte[] frame = NetGuest.Frame(54 + transport + payload, type: 0x86dd);
        Span<byte> ip = frame.AsSpan(14);
        ip[..40].Clear();
        ip[0] = 0x60;
        BinaryPrimitives.WriteUInt16BigEndian(ip[4..], (ushort)(transport + payload));
        ip[6] = protocol;
        ip[7] = 64;
        ip[8] = ip[24] = 0xfd;
        ip[39] = 1;
        Transport(frame.AsSpan(54), protocol);
        return frame;
    }

    private static void Transport(Span<byte> bytes, byte protocol)
    {
        bytes[..(protocol == 6 ? 20 : 8)].Clear();
        bytes[1] = 80;
        bytes[3] = 81;
        if (protocol == 6)
        {
            bytes[12] = 5 << 4;
            bytes[13] = 0x10;
        }
        else
        {
            BinaryPrimitives.WriteUInt16BigEndian(bytes[4..], (ushort)bytes.Length);
        }
    }
}
