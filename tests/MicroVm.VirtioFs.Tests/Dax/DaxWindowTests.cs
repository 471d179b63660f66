using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Tests.Shared;
using MicroVm.VirtioFs.Dax;
using Xunit;

namespace MicroVm.VirtioFs.Tests.Dax;

/// <summary>What a window shows of files that stay, shrink, grow and go.</summary>
public sealed unsafe class DaxWindowTests : IDisposable
{
    private const int Page = 4096;
    private readonly TempTree _tree = new();
    private readonly DaxWindow _window = new(4 * DaxWindow.SlotLength);

    public void Dispose()
    {
        _window.Dispose();
        _tree.Dispose();
    }

    [Fact]
    public void A_slot_is_the_hosts_page_cache_in_both_directions()
    {
        string path = File("f", 2);
        Map(1, path, writable: true);
        Assert.Equal('a', At(1, 0));
        Write(path, Page + 1, 'h');
        Assert.Equal('h', At(1, Page + 1));
        *Pointer(1, 5) = (byte)'g';
        Assert.Equal((byte)'g', System.IO.File.ReadAllBytes(path)[5]);
        Assert.Equal(1, _window.MappedCount);
    }

    [Fact]
    public void What_is_not_mapped_or_not_allowed_cannot_be_touched()
    {
        string path = File("f", 1);
        Assert.False(CanRead(0, 0));
        Map(0, path, writable: false);
        Assert.True(CanRead(0, 0));
        Assert.False(CanWrite(0, 0));
        Assert.False(CanRead(0, Page));
        Map(0, path, writable: true);
        Assert.True(CanWrite(0, 0));
        Assert.True(_window.TryUnmap(0, DaxWindow.SlotLength));
        Assert.False(CanRead(0, 0));
        Assert.Equal(0, _window.MappedCount);
    }

    [Theory]
    [InlineData(0ul, 0ul)]
    [InlineData(1ul, DaxWindow.SlotLength)]
    [InlineData(0ul, DaxWindow.SlotLength - 1)]
    [InlineData(4 * DaxWindow.SlotLength, DaxWindow.SlotLength)]
    [InlineData(3 * DaxWindow.SlotLength, 2 * DaxWindow.SlotLength)]
    [InlineData(DaxWindow.SlotLength, ulong.MaxValue - DaxWindow.SlotLength + 1)]
    [InlineData(ulong.MaxValue - DaxWindow.SlotLength + 1, DaxWindow.SlotLength)]
    public void Other_ranges_than_whole_slots_are_refused(ulong offset, ulong length)
    {
        Map(0, File("f", 1), writable: false);
        Assert.False(_window.AreSlots(offset, length));
        Assert.False(_window.TryUnmap(offset, length));
        Assert.True(CanRead(0, 0));
    }

    [Fact]
    public void Offsets_beyond_what_a_file_can_have_are_refused()
    {
        string path = File("f", 1);
        foreach (ulong offset in (ulong[])[1, Page, (ulong)long.MaxValue + 1, ulong.MaxValue & ~(DaxWindow.SlotLength - 1)])
        {
            Assert.Equal(Errno.EINVAL, _window.Map(0, 1, Open(path, Libc.O_RDONLY), offset, writable: false));
        }

        Assert.NotEqual(Errno.OK, _window.Map(0, 1, Open(path, Libc.O_RDONLY), 0, writable: true));
        Assert.Equal(0, _window.MappedCount);
        Assert.False(CanRead(0, 0));
    }

    [Fact]
    public void Lost_pages_read_as_zeros_and_come_back_when_the_file_grows()
    {
        string path = File("f", 3);
        string other = File("other", 1);
        Map(0, path, writable: true);
        Map(1, other, writable: true);
        Assert.Equal('b', At(0, Page));
        SetLength(path, Page - 1);
        Assert.False(CanRead(0, Page));
        Assert.True(_window.TryRepair());
        Assert.Equal(0, At(0, Page));
        Assert.Equal(0, At(0, (2 * Page) + 5));
        Assert.Equal('a', At(0, 0));
        *Pointer(0, Page) = (byte)'x';

        // Only the file that had lost something was touched, and nothing is lost of it now.
        Assert.True(_window.HasZeroPages);
        Assert.False(CanRead(1, Page));
        _window.RestoreGrown();
        Assert.Equal('x', At(0, Page));
        SetLength(path, 2 * Page);
        Write(path, Page + 1, 'n');
        _window.RestoreGrown();
        Assert.Equal(0, At(0, Page));
        Assert.Equal('n', At(0, Page + 1));
        Assert.False(CanRead(0, 2 * Page));
        Assert.False(_window.HasZeroPages);
    }

    [Fact]
    public void Pages_behind_the_end_are_zeros_once_they_are_touched_although_nothing_shrank()
    {
        Map(0, File("f", 1), writable: false);
        Assert.True(_window.TryRepair());
        Assert.Equal(0, At(0, Page));
        Assert.False(_window.TryRepair());
        Assert.True(_window.TryUnmap(0, DaxWindow.SlotLength));
        Assert.False(_window.HasZeroPages);
        Assert.False(_window.TryRepair());
    }

    [Fact]
    public void Slots_of_files_that_go_are_given_back_and_the_rest_stays()
    {
        int before = Descriptors();
        Map(0, File("f", 1), writable: false, node: 7);
        Map(1, File("g", 1), writable: false, node: 8);
        _window.UnmapWhere(node => node == 7);
        Assert.Equal(0, At(0, 0));
        Assert.Equal('a', At(1, 0));
        Assert.Equal(1, _window.MappedCount);
        Assert.True(_window.TryUnmap(0, DaxWindow.SlotLength));
        Assert.False(CanRead(0, 0));
        _window.Clear();
        Assert.False(CanRead(1, 0));
        Assert.Equal(before, Descriptors());
    }

    [Fact]
    public void Pages_behind_the_end_are_replaced_before_anybody_touches_them()
    {
        string path = File("f", 2);
        Map(0, path, writable: true);
        _window.ReplaceLost();
        Assert.Equal(0, At(0, 2 * Page));
        SetLength(path, 3 * Page);
        Write(path, 2 * Page, 'n');
        _window.RestoreGrown();
        Assert.Equal('n', At(0, 2 * Page));
        SetLength(path, Page);
        Map(0, path, writable: true);
        _window.ReplaceLost();
        Assert.Equal(0, At(0, 2 * Page));
        Assert.Equal('a', At(0, 0));
    }

    [Fact]
    public void A_removed_file_keeps_its_slot_while_it_is_used()
    {
        string path = File("f", 1);
        Map(0, path, writable: false, node: 7);
        Map(1, File("g", 1), writable: false, node: 8);
        System.IO.File.Delete(path);
        _window.UnmapRemoved(_ => false);
        Assert.True(CanRead(0, 0));
        _window.UnmapRemoved(_ => true);
        Assert.Equal(0, At(0, 0));
        Assert.Equal('a', At(1, 0));
    }

    private static int Descriptors() => Directory.GetFileSystemEntries("/proc/self/fd").Length;

    private static int Open(string path, int flags) => Libc.open(path, flags | Libc.O_CLOEXEC, 0);

    private static void Write(string path, long offset, char value)
    {
        using FileStream stream = System.IO.File.OpenWrite(path);
        stream.Position = offset;
        stream.WriteByte((byte)value);
    }

    private static void SetLength(string path, long length)
    {
        using FileStream stream = System.IO.File.OpenWrite(path);
        stream.SetLength(length);
    }

    private string File(string name, int pages)
    {
        _tree.Write(name, string.Concat(Enumerable.Range(0, pages).Select(i => new string((char)('a' + i), Page))));
        return Path.Combine(_tree.Share, name);
    }

    private void Map(int slot, string path, bool writable, ulong node = 1) =>
        Assert.Equal(Errno.OK, _window.Map((ulong)slot * DaxWindow.SlotLength, node, Open(path, writable ? Libc.O_RDWR : Libc.O_RDONLY), 0, writable));

    private byte* Pointer(int slot, int offset) => (byte*)_window.Address + ((ulong)slot * DaxWindow.SlotLength) + offset;

    private char At(int slot, int offset) => (char)Volatile.Read(ref *Pointer(slot, offset));

    /// <summary>As the kernel sees it: EFAULT where this process would get a signal.</summary>
    private bool CanRead(int slot, int offset)
    {
        Libc.iovec vector = new() { iov_base = Pointer(slot, offset), iov_len = 1 };
        using Probe file = new();
        return Libc.pwritev(file.Fd, &vector, 1, 0) == 1;
    }

    private bool CanWrite(int slot, int offset)
    {
        Libc.iovec vector = new() { iov_base = Pointer(slot, offset), iov_len = 1 };
        using Probe file = new();
        return Libc.preadv(file.Fd, &vector, 1, 0) == 1;
    }

    private sealed class Probe : IDisposable
    {
        private readonly string _path = Path.GetTempFileName();

        public Probe()
        {
            System.IO.File.WriteAllText(_path, "x");
            Fd = Open(_path, Libc.O_RDWR);
        }

        public int Fd { get; }

        public void Dispose()
        {
            _ = Libc.close(Fd);
            System.IO.File.Delete(_path);
        }
    }
}
