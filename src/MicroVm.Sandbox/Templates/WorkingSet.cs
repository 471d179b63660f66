using System.Globalization;
using System.Runtime.InteropServices;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Sandbox.Templates;

/// <summary>
/// The pages of a template's memory that a VM has written: in its VMM's page tables they are the process's own, no pages of the file any more
/// (/proc/PID/pagemap; Documentation/admin-guide/mm/pagemap.rst).
/// </summary>
internal static unsafe class WorkingSet
{
    private const ulong Present = 1ul << 63, FilePage = 1ul << 61;
    private const int PageSize = 4096;
    private const int PagesAtOnce = 8192;
    private const int MaxMaps = 4 << 20;

    /// <summary>The pages that a VMM's guest has written so far.</summary>
    /// <param name="pid">The VMM.</param>
    /// <param name="memory">The memory file that it maps.</param>
    /// <exception cref="LinuxException">The VMM has ended, or must not be looked at.</exception>
    internal static PageSet Read(int pid, SafeFd memory)
    {
        Libc.statx_t stat;
        byte empty = 0;
        Check.Result(Libc.statx(memory.Value, &empty, Libc.AT_EMPTY_PATH, Libc.STATX_BASIC_STATS, &stat), "statx", "the memory file");
        string file = string.Create(CultureInfo.InvariantCulture, $"{stat.stx_dev_major:x2}:{stat.stx_dev_minor:x2} {stat.stx_ino}");
        string path = string.Create(CultureInfo.InvariantCulture, $"/proc/{pid}/pagemap");
        using SafeFd pagemap = SafeFd.From(Libc.open(path, Libc.O_RDONLY | Libc.O_CLOEXEC, 0), "open", path);
        string maps = string.Create(CultureInfo.InvariantCulture, $"/proc/{pid}/maps");
        List<uint> pages = [];
        foreach (string line in System.Text.Encoding.UTF8.GetString(HostFile.ReadAllBytes(maps, MaxMaps)).Split('\n'))
        {
            if (MemoryMapping.Parse(line) is { } mapping && mapping.File == file)
            {
                AddWritten(pagemap, mapping, pages);
            }
        }

        pages.Sort();
        return PageSet.Of(pages.Distinct());
    }

    private static void AddWritten(SafeFd pagemap, MemoryMapping mapping, List<uint> pages)
    {
        ulong[] entries = new ulong[PagesAtOnce];
        ulong count = (mapping.End - mapping.Start) / PageSize;
        for (ulong done = 0; done < count;)
        {
            Span<byte> part = MemoryMarshal.AsBytes(entries.AsSpan(0, (int)Math.Min(PagesAtOnce, count - done)));
            nint n;
            fixed (byte* p = part)
            {
                n = Libc.pread(pagemap.Value, p, (nuint)part.Length, (long)(((mapping.Start / PageSize) + done) * sizeof(ulong)));
            }

            if (Check.Retry(n))
            {
                continue;
            }

            int read = (int)Check.Result(n, "pread", "pagemap") / sizeof(ulong);
            for (int i = 0; i < read; i++)
            {
                if ((entries[i] & (Present | FilePage)) == Present)
                {
                    pages.Add((uint)((mapping.Offset / PageSize) + done + (uint)i));
                }
            }

            if (read == 0)
            {
                return;
            }

            done += (uint)read;
        }
    }
}
