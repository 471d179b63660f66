using FsCheck;
using FsCheck.Fluent;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Tests.Shared;
using MicroVm.VirtioFs.Dax;
using Xunit;

namespace MicroVm.VirtioFs.Tests.Dax;

/// <summary>Slots against an array that says what each has, over any order of requests, truncations and faults.</summary>
public sealed unsafe class DaxWindowProperties
{
    private const int Slots = 4;
    private const int Files = 3;
    private const int Page = 4096;
    private const int MostPages = 3;

    [Fact]
    public void A_window_shows_what_was_mapped_last()
    {
        Gen<byte[]> numbers = Gen.Choose(0, 255).Select(n => (byte)n).ArrayOf();
        Prop.ForAll(numbers.ToArbitrary(), Check).QuickCheckThrowOnFailure();
    }

    private static void Check(byte[] numbers)
    {
        using TempTree tree = new();
        using DaxWindow window = new(Slots * DaxWindow.SlotLength);
        int[] slots = [.. Enumerable.Repeat(-1, Slots)];
        string[] paths = new string[Files];
        int[] pages = new int[Files];
        for (int f = 0; f < Files; f++)
        {
            paths[f] = Path.Combine(tree.Share, $"{f}");
            SetPages(paths[f], f, pages[f] = 2);
        }

        for (int i = 0; i + 2 < numbers.Length; i += 3)
        {
            int slot = numbers[i + 1] % Slots;
            int file = numbers[i + 2] % Files;
            switch (numbers[i] % 5)
            {
                case 0:
                    int fd = Libc.open(paths[file], Libc.O_RDWR | Libc.O_CLOEXEC, 0);
                    Assert.Equal(Errno.OK, window.Map((ulong)slot * DaxWindow.SlotLength, (ulong)file, fd, 0, writable: true));
                    slots[slot] = file;
                    break;
                case 1:
                    Assert.True(window.TryUnmap((ulong)slot * DaxWindow.SlotLength, DaxWindow.SlotLength));
                    slots[slot] = -1;
                    break;
                case 2:
                    SetPages(paths[file], file, pages[file] = numbers[i + 1] % (MostPages + 1));
                    window.RestoreGrown();
                    break;
                case 3:
                    _ = window.TryRepair();
                    break;
                default:
                    window.UnmapWhere(node => node == (ulong)file);
                    Array.ForEach(Enumerable.Range(0, Slots).ToArray(), s => slots[s] = slots[s] == file ? -1 : slots[s]);
                    break;
            }

            Assert.Equal(slots.Count(s => s >= 0), window.MappedCount);
        }

        // After a fault everything that is mapped can be read, to the slot's end.
        _ = window.TryRepair();
        _ = window.TryRepair();
        for (int s = 0; s < Slots; s++)
        {
            byte* p = (byte*)window.Address + ((ulong)s * DaxWindow.SlotLength);
            for (int page = 0; slots[s] >= 0 && page <= MostPages; page++)
            {
                Assert.Equal(page < pages[slots[s]] ? 'a' + slots[s] : 0, p[page * Page]);
            }
        }
    }

    private static void SetPages(string path, int file, int pages)
    {
        using FileStream stream = System.IO.File.Open(path, FileMode.OpenOrCreate, FileAccess.Write);
        stream.SetLength(pages * Page);
        for (int i = 0; i < pages; i++)
        {
            stream.Position = i * Page;
            stream.WriteByte((byte)('a' + file));
        }
    }
}
