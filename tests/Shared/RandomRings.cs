using FsCheck;
using FsCheck.Fluent;
using MicroVm.Virtio;

namespace MicroVm.Tests.Shared;

/// <summary>Split virtqueues as a hostile driver may write them: addresses in and out of RAM, loops, lengths that wrap.</summary>
internal static class RandomRings
{
    /// <summary>Bytes of RAM that the addresses are chosen around.</summary>
    public const ulong Ram = 32ul << 20;

    /// <summary>Entries of each table and ring.</summary>
    public const int Size = 16;

    private static readonly Gen<ulong> Addresses = Gen.Frequency(
        (4, Gen.Choose(0, (int)Ram).Select(a => (ulong)a)),
        (2, Gen.Choose(-64, 64).Select(d => Ram + (ulong)(long)d)),
        (1, Gen.Choose(-64, 0).Select(d => (ulong)(long)d)),
        (1, Gen.Choose(0, int.MaxValue).Select(a => (ulong)a * 0x1_0000_0001)));

    private static readonly Gen<uint> Lengths = Gen.Frequency(
        (4, Gen.Choose(0, 8192).Select(n => (uint)n)),
        (1, Gen.Choose(0, 64).Select(n => uint.MaxValue - (uint)n)),
        (2, Gen.Choose(0, 20).Select(n => (uint)n * 16)));

    private static readonly Gen<ushort> Indices = Gen.Frequency(
        (5, Gen.Choose(0, Size - 1).Select(i => (ushort)i)),
        (1, Gen.Choose(0, 0xffff).Select(i => (ushort)i)));

    private static readonly Gen<Descriptor> Descriptors =
        from address in Addresses
        from length in Lengths
        from flags in Gen.Frequency((6, Gen.Choose(0, 3)), (1, Gen.Choose(0, 7)))
        from next in Indices
        select new Descriptor(address, length, (ushort)flags, next);

    /// <summary>A descriptor table, an indirect one, the available ring's entries, and its index.</summary>
    public static readonly Gen<(Descriptor[] Table, Descriptor[] Inner, ushort[] Available, ushort Jump)> All =
        from table in Descriptors.ArrayOf(Size)
        from inner in Descriptors.ArrayOf(Size)
        from available in Indices.ArrayOf(Size)
        from jump in Gen.Frequency((5, Gen.Choose(0, Size)), (1, Gen.Choose(0, 0xffff)))
        select (table, inner, available, (ushort)jump);
}
