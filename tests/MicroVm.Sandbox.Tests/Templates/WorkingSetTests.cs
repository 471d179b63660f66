using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Sandbox.Templates;

namespace MicroVm.Sandbox.Tests.Templates;

public sealed unsafe class WorkingSetTests
{
    private const int Page = 4096, Pages = 64;

    /// <summary>Of a private mapping, pages that were written are in the set, and pages that were read are not.</summary>
    [SkippableFact]
    public void Pages_that_were_written_are_found()
    {
        Skip.IfNot(Libc.geteuid() == 0, "not root: the pages of a process were NOT looked at");
        using TempFolder folder = new();
        File.WriteAllBytes(folder["memory"], [.. Enumerable.Repeat((byte)1, Pages * Page)]);
        using SafeFd file = SafeFd.From(Libc.open(folder["memory"], Libc.O_RDONLY | Libc.O_CLOEXEC, 0), "open");
        const int Half = Pages / 2 * Page;
        byte* first = Map(file, 0), second = Map(file, Half);
        try
        {
            (first[3 * Page], first[4 * Page]) = (2, 2);
            second[Page] = first[8 * Page];
            Assert.Equal([(3u, 2u), ((Pages / 2) + 1u, 1u)], WorkingSet.Read(Environment.ProcessId, file).Ranges);
        }
        finally
        {
            _ = Libc.munmap(first, Half);
            _ = Libc.munmap(second, Half);
        }

        static byte* Map(SafeFd file, long offset)
        {
            void* p = Libc.mmap(null, Half, Libc.PROT_READ | Libc.PROT_WRITE, Libc.MAP_PRIVATE, file.Value, offset);
            Assert.NotEqual(-1, (nint)p);
            return (byte*)p;
        }
    }

    [Fact]
    public void Lines_of_maps_are_read()
    {
        Assert.Equal(
            new MemoryMapping(0x7f00_0000, 0x7f00_2000, 0x1000, "fe:00 11657693"),
            MemoryMapping.Parse("7f000000-7f002000 rw-p 00001000 fe:00 11657693                   /a path with spaces"));
        Assert.All((string[])["", "7f-", "x-y rw-p 0 fe:00 1", "2-1 rw-p 0 fe:00 1", "1-2 rw-p 0 fe:00"], l => Assert.Null(MemoryMapping.Parse(l)));
    }
}
