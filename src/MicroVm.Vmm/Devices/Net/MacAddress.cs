using System.Globalization;

namespace MicroVm.Vmm.Devices.Net;

/// <summary>An Ethernet address; the first byte on the wire is the lowest of <see cref="Bits"/>.</summary>
internal readonly record struct MacAddress(ulong Bits)
{
    /// <summary>Bytes of an address.</summary>
    public const int Length = 6;

    /// <summary>The address of everybody.</summary>
    public static MacAddress Broadcast => new(0xffff_ffff_ffff);

    /// <summary>Group addresses, the broadcast among them.</summary>
    public bool IsMulticast => (Bits & 1) != 0;

    /// <summary>Reads the address at the start of <paramref name="bytes"/>.</summary>
    public static MacAddress Read(ReadOnlySpan<byte> bytes) => new(
        bytes[0] | ((ulong)bytes[1] << 8) | ((ulong)bytes[2] << 16) | ((ulong)bytes[3] << 24) | ((ulong)bytes[4] << 32) | ((ulong)bytes[5] << 40));

    /// <summary>Writes the address.</summary>
    public void Write(Span<byte> bytes)
    {
        for (int i = 0; i < Length; i++)
        {
            bytes[i] = (byte)(Bits >> (8 * i));
        }
    }

    /// <summary>Reads "02:00:5e:10:00:01"; false when it is not an address of one interface.</summary>
    public static bool TryParse(string text, out MacAddress address)
    {
        address = default;
        string[] parts = text.Split(':');
        if (parts.Length != Length)
        {
            return false;
        }

        ulong bits = 0;
        for (int i = 0; i < Length; i++)
        {
            if (parts[i].Length != 2 || !byte.TryParse(parts[i], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out byte value))
            {
                return false;
            }

            bits |= (ulong)value << (8 * i);
        }

        address = new MacAddress(bits);
        return bits != 0 && !address.IsMulticast;
    }
}
