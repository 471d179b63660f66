using System.Buffers.Binary;
using MicroVm.Linux.Netlink;
using MicroVm.Tests.Shared.Fuzz;
using Xunit;

namespace MicroVm.Linux.Tests.Fuzz;

/// <summary>Attributes whose lengths lie: what is read is of the message, and the list ends.</summary>
public sealed class NetlinkFuzz
{
    [Fact]
    public void Attributes() => Fuzzing.Run("netlink", random =>
    {
        byte[] good = new byte[4 * random.Next(1, 40)];
        for (int at = 0; at + 8 <= good.Length; at += 8)
        {
            BinaryPrimitives.WriteUInt16LittleEndian(good.AsSpan(at), 8);
            BinaryPrimitives.WriteUInt16LittleEndian(good.AsSpan(at + 2), (ushort)random.Next(8));
        }

        byte[] spoilt = Spoiling.Bytes(good, random);
        NetlinkAttributes attributes = new(spoilt);
        for (ushort type = 0; type < 8; type++)
        {
            Assert.InRange(attributes.Bytes(type).Length, 0, spoilt.Length);
            _ = (attributes.UInt32(type), attributes.Text(type), attributes.TryRead(type, out long _));
        }

        ReadOnlySpan<byte> rest = spoilt;
        int count = 0;
        while (NetlinkAttributes.TryNext(ref rest, out _, out _))
        {
            Assert.InRange(++count, 1, spoilt.Length);
        }
    });
}
