using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using MicroVm.Linux.Native;

namespace MicroVm.Linux.Netlink;

/// <summary>The attributes behind a message's body. Malformed ones end the list.</summary>
public readonly ref struct NetlinkAttributes
{
    private readonly ReadOnlySpan<byte> _bytes;

    /// <summary>Reads attributes from <paramref name="bytes"/>.</summary>
    public NetlinkAttributes(ReadOnlySpan<byte> bytes) => _bytes = bytes;

    /// <summary>The value of an attribute; empty where it is not there.</summary>
    public ReadOnlySpan<byte> this[ushort type]
    {
        get
        {
            ReadOnlySpan<byte> rest = _bytes;
            while (TryNext(ref rest, out ushort t, out ReadOnlySpan<byte> value))
            {
                if (t == type)
                {
                    return value;
                }
            }

            return default;
        }
    }

    /// <summary>Takes the first attribute of <paramref name="rest"/> off.</summary>
    public static bool TryNext(scoped ref ReadOnlySpan<byte> rest, out ushort type, out ReadOnlySpan<byte> value)
    {
        type = 0;
        value = default;
        if (rest.Length < 4)
        {
            return false;
        }

        int length = BinaryPrimitives.ReadUInt16LittleEndian(rest);
        if (length < 4 || length > rest.Length)
        {
            return false;
        }

        type = (ushort)(BinaryPrimitives.ReadUInt16LittleEndian(rest[2..]) & Libc.NLA_TYPE_MASK);
        value = rest[4..length];
        rest = rest[Math.Min(rest.Length, (length + 3) & ~3)..];
        return true;
    }

    /// <summary>Whether an attribute is there.</summary>
    public bool Has(ushort type)
    {
        ReadOnlySpan<byte> rest = _bytes;
        while (TryNext(ref rest, out ushort t, out _))
        {
            if (t == type)
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>A number; 0 where it is not there.</summary>
    public uint UInt32(ushort type) => this[type] is { Length: >= 4 } v ? BinaryPrimitives.ReadUInt32LittleEndian(v) : 0;

    /// <summary>A string; empty where it is not there.</summary>
    public string Text(ushort type) => Encoding.UTF8.GetString(this[type].TrimEnd((byte)0));

    /// <summary>The bytes of an address; empty where it is not there.</summary>
    public byte[] Bytes(ushort type) => this[type].ToArray();

    /// <summary>A structure; false where it is not there or too short.</summary>
    public bool TryRead<T>(ushort type, out T value)
        where T : unmanaged
    {
        ReadOnlySpan<byte> bytes = this[type];
        value = default;
        return bytes.Length >= Unsafe.SizeOf<T>() && MemoryMarshal.TryRead(bytes, out value);
    }
}
