using FsCheck;
using FsCheck.Fluent;
using MicroVm.VmmControl.Snapshots;
using Xunit;

namespace MicroVm.VmmControl.Tests.Snapshots;

public class PageSetTests
{
    [Fact]
    public void Neighbours_are_one_range()
    {
        PageSet set = PageSet.Parse(PageSet.Of([0, 1, 2, 7, 9, 10, uint.MaxValue - 1]).ToArray());
        Assert.Equal([(0u, 3u), (7u, 1u), (9u, 2u), (uint.MaxValue - 1, 1u)], set.Ranges);
        Assert.Empty(PageSet.Parse(PageSet.Of([]).ToArray()).Ranges);
    }

    [Fact]
    public void A_set_has_no_more_ranges_than_a_file_may()
    {
        PageSet set = PageSet.Of(Enumerable.Range(0, 2 * PageSet.MaxRanges).Select(i => (uint)i * 2));
        Assert.Equal(PageSet.MaxRanges, set.Ranges.Count);
        Assert.Equal(PageSet.MaxLength, set.ToArray().Length);
        Assert.Equal(set.Ranges, PageSet.Parse(set.ToArray()).Ranges);
    }

    [Theory]
    [InlineData(5u, 0u, 9u, 1u)]
    [InlineData(5u, 5u, 9u, 1u)]
    [InlineData(9u, 1u, 5u, 1u)]
    [InlineData(5u, 1u, uint.MaxValue, 1u)]
    [InlineData(5u, uint.MaxValue, 9u, 1u)]
    public void Ranges_that_cannot_be_are_refused(uint first, uint count, uint second, uint secondCount)
    {
        byte[] file = PageSet.Of([1, 3]).ToArray();
        BitConverter.TryWriteBytes(file.AsSpan(12), first);
        BitConverter.TryWriteBytes(file.AsSpan(16), count);
        BitConverter.TryWriteBytes(file.AsSpan(20), second);
        BitConverter.TryWriteBytes(file.AsSpan(24), secondCount);
        Assert.Throws<SnapshotException>(() => PageSet.Parse(file));
    }

    [Fact]
    public void Damaged_files_are_refused_or_read_but_never_more()
    {
        byte[] good = PageSet.Of([1, 2, 3, 7, 100]).ToArray();
        Prop.ForAll(Gen.Choose(0, good.Length - 1).ToArbitrary(), Gen.Choose(0, 255).ToArbitrary(), Gen.Choose(0, good.Length).ToArbitrary(), (at, with, length) =>
        {
            byte[] file = [.. good];
            file[at] = (byte)with;
            try
            {
                ulong end = 0;
                return PageSet.Parse(file.AsSpan(0, length)).Ranges.All(r =>
                {
                    bool rises = r.First >= end && r.Count > 0;
                    end = (ulong)r.First + r.Count;
                    return rises && end <= uint.MaxValue;
                });
            }
            catch (SnapshotException)
            {
                return true;
            }
        }).QuickCheckThrowOnFailure();
    }
}
