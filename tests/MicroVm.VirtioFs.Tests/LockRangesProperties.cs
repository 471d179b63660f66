using FsCheck;
using FsCheck.Fluent;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Locks;
using Xunit;

namespace MicroVm.VirtioFs.Tests;

/// <summary>Lists of locked ranges against an array that has a type for each byte.</summary>
public class LockRangesProperties
{
    private const int Bytes = 24;

    [Fact]
    public void A_list_is_what_was_set_byte_by_byte()
    {
        Gen<byte[]> numbers = Gen.Choose(0, 255).Select(n => (byte)n).ArrayOf();
        Prop.ForAll(numbers.ToArbitrary(), SetAll).QuickCheckThrowOnFailure();
    }

    private static void SetAll(byte[] numbers)
    {
        using LockRanges ranges = new();
        uint[] model = new uint[Bytes];
        Array.Fill(model, (uint)Libc.F_UNLCK);
        int head = LockRanges.None;
        for (int i = 0; i + 2 < numbers.Length; i += 3)
        {
            int start = numbers[i] % Bytes;
            int end = Math.Min(start + (numbers[i + 1] % 9), Bytes - 1);
            uint type = (uint)(numbers[i + 2] % 3);
            int before = ranges.Count;
            head = ranges.Set(head, Place(start), Place(end), type);
            Array.Fill(model, type, start, end - start + 1);
            Assert.InRange(ranges.Count, 0, before + LockRanges.MostAdded);
            Check(ranges, head, model);
        }

        ranges.Clear(head);
        Assert.Equal(0, ranges.Count);
    }

    /// <summary>The last byte stands for the end of every file.</summary>
    private static long Place(int at) => at == Bytes - 1 ? long.MaxValue : at == Bytes - 2 ? long.MaxValue - 1 : at;

    private static void Check(LockRanges ranges, int head, uint[] model)
    {
        uint[] found = new uint[Bytes];
        Array.Fill(found, (uint)Libc.F_UNLCK);
        long last = -2;
        uint lastType = Libc.F_UNLCK;
        for (int i = head; i != LockRanges.None; i = ranges[i].Next)
        {
            ref LockRanges.Range r = ref ranges[i];
            Assert.True(r.Start <= r.End && r.Start > last, "sorted, apart");
            Assert.False(r.Start == last + 1 && r.Type == lastType, "merged");
            (last, lastType) = (r.End, r.Type);
            for (int at = 0; at < Bytes; at++)
            {
                found[at] = Place(at) >= r.Start && Place(at) <= r.End ? r.Type : found[at];
            }
        }

        Assert.Equal(model, found);
        for (int at = 0; at < Bytes; at++)
        {
            Assert.Equal(model[at] == Libc.F_WRLCK, ranges.FindConflict(head, Place(at), Place(at), Libc.F_RDLCK) != LockRanges.None);
            Assert.Equal(model[at] != Libc.F_UNLCK, ranges.FindConflict(head, Place(at), Place(at), Libc.F_WRLCK) != LockRanges.None);
        }
    }
}
