using System.Buffers.Binary;

namespace MicroVm.Tests.Shared.Fuzz;

/// <summary>
/// Random numbers that are the bytes of an input, so that a change of the input is a change of one decision. After its end they
/// are made from a seed that the input gives.
/// </summary>
internal sealed class InputRandom(byte[] input) : Random
{
    private readonly Random _rest = new(unchecked((int)Corpus.Hash(input)));
    private int _at;

    public override int Next() => (int)(Take(4) & int.MaxValue);

    public override int Next(int maxValue) => Next(0, maxValue);

    public override int Next(int minValue, int maxValue) => (int)NextInt64(minValue, maxValue);

    public override long NextInt64() => (long)(Take(8) & long.MaxValue);

    public override long NextInt64(long maxValue) => NextInt64(0, maxValue);

    public override long NextInt64(long minValue, long maxValue)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(maxValue, minValue);
        ulong range = (ulong)maxValue - (ulong)minValue;
        return range < 2 ? minValue : (long)((ulong)minValue + (Take(Width(range)) % range));
    }

    public override void NextBytes(byte[] buffer) => NextBytes(buffer.AsSpan());

    public override void NextBytes(Span<byte> buffer)
    {
        int n = Math.Min(buffer.Length, input.Length - _at);
        input.AsSpan(_at, n).CopyTo(buffer);
        _at += n;
        _rest.NextBytes(buffer[n..]);
    }

    public override double NextDouble() => Sample();

    protected override double Sample() => Take(4) / (double)(1L << 32);

    private static int Width(ulong range) => range <= 1 << 8 ? 1 : range <= 1 << 16 ? 2 : range <= 1L << 32 ? 4 : 8;

    private ulong Take(int width)
    {
        Span<byte> number = stackalloc byte[8];
        number.Clear();
        NextBytes(number[..width]);
        return BinaryPrimitives.ReadUInt64LittleEndian(number);
    }
}
