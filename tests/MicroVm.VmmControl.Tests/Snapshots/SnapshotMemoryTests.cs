using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VmmControl.Snapshots;
using Xunit;

namespace MicroVm.VmmControl.Tests.Snapshots;

/// <summary>The memory file: its checksum is that of the pages, however the file is laid out.</summary>
public sealed unsafe class SnapshotMemoryTests
{
    private const int Page = PageChecksum.PageSize;

    [Fact]
    public void A_file_with_holes_and_one_without_have_the_same_checksum()
    {
        SnapshotHeader header = HeaderOf((3, 1), (200, 7));
        using SafeFd sparse = File(1 << 20, (3, 1), (200, 7));
        SnapshotMemory.Verify(sparse, header);
        using SafeFd full = File(1 << 20, [.. Enumerable.Range(0, 256).Select(i => (i, (byte)(i == 3 ? 1 : i == 200 ? 7 : 0)))]);
        SnapshotMemory.Verify(full, header);
    }

    [Fact]
    public void A_changed_moved_missing_or_additional_page_is_found()
    {
        SnapshotHeader header = HeaderOf((3, 1), (200, 7));
        foreach ((int, byte)[] pages in ((int, byte)[][])[[(3, 1), (200, 8)], [(4, 1), (200, 7)], [(3, 1)], [(3, 1), (200, 7), (255, 1)], []])
        {
            using SafeFd file = File(1 << 20, pages);
            Assert.Contains("damaged or of another snapshot", Assert.Throws<SnapshotException>(() => SnapshotMemory.Verify(file, header)).Message, StringComparison.Ordinal);
        }
    }

    [Theory]
    [InlineData(0)]
    [InlineData((1 << 20) - 1)]
    [InlineData((1 << 20) + Page)]
    public void A_file_of_another_length_is_refused(int length)
    {
        using SafeFd file = File(length);
        Assert.Contains($"has {length} bytes", Assert.Throws<SnapshotException>(() => SnapshotMemory.CheckLength(file, HeaderOf())).Message, StringComparison.Ordinal);
    }

    private static SnapshotHeader HeaderOf(params (int Number, byte Value)[] pages)
    {
        PageChecksum checksum = new();
        foreach ((int number, byte value) in pages)
        {
            byte[] page = new byte[Page];
            page[^1] = value;
            checksum.Append((ulong)number, page);
        }

        return new SnapshotHeader { MemoryMiB = 1, Vcpus = 1, MemoryBytes = checksum.Bytes, MemoryChecksum = checksum.Text };
    }

    private static SafeFd File(int length, params (int Number, byte Value)[] pages)
    {
        SafeFd file = SafeFd.From(Libc.memfd_create("memory", Libc.MFD_CLOEXEC), "memfd_create");
        Check.Result(Libc.ftruncate(file.Value, length), "ftruncate");
        foreach ((int number, byte value) in pages)
        {
            byte[] page = new byte[Page];
            page[^1] = value;
            fixed (byte* p = page)
            {
                Assert.Equal(Page, Libc.pwrite(file.Value, p, Page, (long)number * Page));
            }
        }

        return file;
    }
}
