using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using MicroVm.Linux.Native;

namespace MicroVm.Linux.Netlink;

/// <summary>A netlink message under construction: header, body, attributes (linux/netlink.h). Numbers are the host's, as the kernel's are.</summary>
public sealed class NetlinkRequest
{
    private readonly List<byte> _bytes = [];

    /// <summary>Starts a message.</summary>
    /// <param name="type">RTM_*.</param>
    /// <param name="flags">NLM_F_*; REQUEST is added.</param>
    public NetlinkRequest(ushort type, ushort flags)
    {
        Libc.nlmsghdr header = new() { nlmsg_type = type, nlmsg_flags = (ushort)(flags | Libc.NLM_F_REQUEST) };
        Append(header);
    }

    /// <summary>Appends a structure: the message's body.</summary>
    public NetlinkRequest Append<T>(in T value)
        where T : unmanaged
    {
        _bytes.AddRange(MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)));
        return this;
    }

    /// <summary>Adds an attribute of bytes.</summary>
    /// <exception cref="LinuxException">EMSGSIZE: its length, as all lengths of attributes here, does not fit 16 bits.</exception>
    public NetlinkRequest Add(ushort type, ReadOnlySpan<byte> value)
    {
        Append(Length(value.Length + 4));
        Append(type);
        _bytes.AddRange(value);
        Pad();
        return this;
    }

    /// <summary>Adds an attribute that is a structure or number.</summary>
    public NetlinkRequest Add<T>(ushort type, in T value)
        where T : unmanaged => Add(type, MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)));

    /// <summary>Adds a string attribute, ended by a zero byte.</summary>
    public NetlinkRequest Add(ushort type, string value) => Add(type, Encoding.UTF8.GetBytes(value + "\0"));

    /// <summary>Adds an attribute that holds those which <paramref name="content"/> adds.</summary>
    public NetlinkRequest Nest(ushort type, Action<NetlinkRequest> content)
    {
        ArgumentNullException.ThrowIfNull(content);
        int start = _bytes.Count;
        Append((ushort)0);
        Append((ushort)(type | Libc.NLA_F_NESTED));
        content(this);
        BinaryPrimitives.WriteUInt16LittleEndian(CollectionsMarshal.AsSpan(_bytes)[start..], Length(_bytes.Count - start));
        return this;
    }

    /// <summary>Adds a next hop of a multipath route, with the attributes that <paramref name="content"/> adds.</summary>
    public NetlinkRequest AppendNextHop(byte flags, byte hops, int index, Action<NetlinkRequest> content)
    {
        ArgumentNullException.ThrowIfNull(content);
        int start = _bytes.Count;
        Append(new Libc.rtnexthop { rtnh_flags = flags, rtnh_hops = hops, rtnh_ifindex = index });
        content(this);
        BinaryPrimitives.WriteUInt16LittleEndian(CollectionsMarshal.AsSpan(_bytes)[start..], Length(_bytes.Count - start));
        return this;
    }

    /// <summary>The finished message.</summary>
    internal byte[] Finish(uint sequence)
    {
        byte[] message = [.. _bytes];
        ref Libc.nlmsghdr header = ref Unsafe.As<byte, Libc.nlmsghdr>(ref message[0]);
        header.nlmsg_len = (uint)message.Length;
        header.nlmsg_seq = sequence;
        return message;
    }

    private static ushort Length(int length) =>
        length <= ushort.MaxValue ? (ushort)length : throw new LinuxException(Errno.EMSGSIZE, "netlink attribute", $"of {length} bytes");

    private void Pad()
    {
        while (_bytes.Count % 4 != 0)
        {
            _bytes.Add(0);
        }
    }
}
