using System.Buffers.Binary;
using System.Text;

namespace MicroVm.Vmm.Tables.Acpi;

/// <summary>
/// Writes the few AML constructs that a DSDT of fixed devices needs (ACPI 6.4, 20.2): scopes, devices, names, packages,
/// and resource templates.
/// </summary>
public sealed class AmlWriter
{
    private const byte ScopeOp = 0x10;
    private const byte ExtOpPrefix = 0x5b;
    private const byte DeviceOp = 0x82;
    private const byte NameOp = 0x08;
    private const byte PackageOp = 0x12;
    private const byte BufferOp = 0x11;
    private const byte BytePrefix = 0x0a;
    private const byte WordPrefix = 0x0b;
    private const byte DWordPrefix = 0x0c;
    private const byte StringPrefix = 0x0d;
    private readonly List<byte> _bytes = [];

    /// <summary>What was written.</summary>
    public byte[] ToArray() => [.. _bytes];

    /// <summary>Scope(<paramref name="name"/>) { ... }</summary>
    public AmlWriter Scope(string name, Action<AmlWriter> body) => Block([ScopeOp], name, body);

    /// <summary>Device(<paramref name="name"/>) { ... }</summary>
    public AmlWriter Device(string name, Action<AmlWriter> body) => Block([ExtOpPrefix, DeviceOp], name, body);

    /// <summary>Name(<paramref name="name"/>, an integer)</summary>
    public AmlWriter NameInteger(string name, uint value)
    {
        _bytes.Add(NameOp);
        NameString(name);
        Integer(value);
        return this;
    }

    /// <summary>Name(<paramref name="name"/>, a string of ASCII)</summary>
    public AmlWriter NameText(string name, string value)
    {
        ArgumentNullException.ThrowIfNull(value);
        _bytes.Add(NameOp);
        NameString(name);
        _bytes.Add(StringPrefix);
        _bytes.AddRange(Encoding.ASCII.GetBytes(value));
        _bytes.Add(0);
        return this;
    }

    /// <summary>Name(<paramref name="name"/>, EisaId(<paramref name="id"/>)): three letters and four hexadecimal digits.</summary>
    public AmlWriter NameEisaId(string name, string id) => NameInteger(name, EisaId(id));

    /// <summary>Name(<paramref name="name"/>, Package() { integers })</summary>
    public AmlWriter NamePackage(string name, params ReadOnlySpan<uint> values)
    {
        AmlWriter body = new();
        body._bytes.Add((byte)values.Length);
        foreach (uint value in values)
        {
            body.Integer(value);
        }

        _bytes.Add(NameOp);
        NameString(name);
        _bytes.Add(PackageOp);
        WithLength(body);
        return this;
    }

    /// <summary>Name(_CRS, ResourceTemplate() { ... }): <paramref name="resources"/> without the end tag.</summary>
    public AmlWriter CurrentResources(params ReadOnlySpan<byte[]> resources)
    {
        List<byte> template = [];
        foreach (byte[] resource in resources)
        {
            template.AddRange(resource);
        }

        // The end tag's checksum 0 means that there is none (6.4.2.9).
        template.AddRange([0x79, 0]);
        AmlWriter body = new();
        body.Integer((uint)template.Count);
        body._bytes.AddRange(template);
        _bytes.Add(NameOp);
        NameString("_CRS");
        _bytes.Add(BufferOp);
        WithLength(body);
        return this;
    }

    /// <summary>Memory32Fixed(ReadWrite, ...) (6.4.3.4).</summary>
    public static byte[] Memory32Fixed(uint start, uint length)
    {
        byte[] r = new byte[12];
        r[0] = 0x86;
        r[1] = 9;
        r[3] = 1;
        BinaryPrimitives.WriteUInt32LittleEndian(r.AsSpan(4), start);
        BinaryPrimitives.WriteUInt32LittleEndian(r.AsSpan(8), length);
        return r;
    }

    /// <summary>Interrupt(ResourceConsumer, Edge, ActiveHigh, Exclusive) { gsi } (6.4.3.6).</summary>
    public static byte[] EdgeInterrupt(uint gsi)
    {
        const byte ConsumerEdge = 3;
        byte[] r = [0x89, 6, 0, ConsumerEdge, 1, 0, 0, 0, 0];
        BinaryPrimitives.WriteUInt32LittleEndian(r.AsSpan(5), gsi);
        return r;
    }

    /// <summary>IO(Decode16, port, port, 1, length) (6.4.2.5).</summary>
    public static byte[] Ports(ushort first, byte length) =>
        [0x47, 1, (byte)first, (byte)(first >> 8), (byte)first, (byte)(first >> 8), 1, length];

    /// <summary>The compressed form of a PNP id (ACPI 6.4, 19.3.4), as the integer that AML holds.</summary>
    public static uint EisaId(string id)
    {
        ArgumentNullException.ThrowIfNull(id);
        ArgumentOutOfRangeException.ThrowIfNotEqual(id.Length, 7, nameof(id));
        uint letters = ((uint)(id[0] - '@') << 10) | ((uint)(id[1] - '@') << 5) | (uint)(id[2] - '@');
        uint digits = Convert.ToUInt32(id[3..], 16);
        return BinaryPrimitives.ReverseEndianness((letters << 16) | digits);
    }

    private AmlWriter Block(ReadOnlySpan<byte> op, string name, Action<AmlWriter> body)
    {
        ArgumentNullException.ThrowIfNull(body);
        AmlWriter inner = new();
        inner.NameString(name);
        body(inner);
        _bytes.AddRange(op);
        WithLength(inner);
        return this;
    }

    /// <summary>PkgLength counts its own bytes too (20.2.4).</summary>
    private void WithLength(AmlWriter body)
    {
        int n = body._bytes.Count;
        if (n + 1 < 1 << 6)
        {
            _bytes.Add((byte)(n + 1));
        }
        else
        {
            int extra = n + 2 < 1 << 12 ? 1 : n + 3 < 1 << 20 ? 2 : 3;
            int total = n + 1 + extra;
            _bytes.Add((byte)((extra << 6) | (total & 0xf)));
            for (int i = 0; i < extra; i++)
            {
                _bytes.Add((byte)(total >> (4 + (8 * i))));
            }
        }

        _bytes.AddRange(body._bytes);
    }

    private void NameString(string name)
    {
        if (name[0] == '\\')
        {
            _bytes.Add((byte)'\\');
            name = name[1..];
        }

        ArgumentOutOfRangeException.ThrowIfNotEqual(name.Length, 4, nameof(name));
        _bytes.AddRange(Encoding.ASCII.GetBytes(name));
    }

    private void Integer(uint value)
    {
        switch (value)
        {
            case 0 or 1:
                _bytes.Add((byte)value);
                break;
            case <= byte.MaxValue:
                _bytes.AddRange([BytePrefix, (byte)value]);
                break;
            case <= ushort.MaxValue:
                _bytes.AddRange([WordPrefix, (byte)value, (byte)(value >> 8)]);
                break;
            default:
                _bytes.AddRange([DWordPrefix, (byte)value, (byte)(value >> 8), (byte)(value >> 16), (byte)(value >> 24)]);
                break;
        }
    }
}
