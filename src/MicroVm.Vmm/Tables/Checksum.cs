namespace MicroVm.Vmm.Tables;

/// <summary>The checksum of firmware tables: all bytes sum up to 0 modulo 256.</summary>
public static class Checksum
{
    /// <summary>The byte that makes the sum of <paramref name="table"/>, whose checksum field is 0, zero.</summary>
    public static byte Of(ReadOnlySpan<byte> table)
    {
        byte sum = 0;
        foreach (byte b in table)
        {
            sum += b;
        }

        return (byte)-sum;
    }
}
