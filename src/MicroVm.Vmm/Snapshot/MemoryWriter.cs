using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Memory;
using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Vmm.Snapshot;

/// <summary>Writes guest RAM into a memory file, without its zero pages. No vCPU and no device may be running.</summary>
internal static class MemoryWriter
{
    private const ulong MostAtOnce = 1 << 20;

    /// <summary>Writes all of it; whoever gave the file makes it durable.</summary>
    /// <param name="memory">The RAM.</param>
    /// <param name="file">The file, which is empty.</param>
    /// <returns>Checksum and number of the bytes written.</returns>
    /// <exception cref="LinuxException">The file cannot be written.</exception>
    public static PageChecksum Write(GuestMemory memory, SafeFd file)
    {
        ArgumentNullException.ThrowIfNull(memory);
        ArgumentNullException.ThrowIfNull(file);
        Check.Result(Libc.ftruncate(file.Value, (long)memory.Size), "ftruncate", "the memory file");
        PageChecksum checksum = new();
        foreach (GuestRegion region in memory.Regions)
        {
            foreach ((ulong start, ulong end) in memory.UsedRanges(region))
            {
                WriteRange(memory, file, region, start, end, checksum);
            }
        }

        return checksum;
    }

    private static void WriteRange(GuestMemory memory, SafeFd file, in GuestRegion region, ulong start, ulong end, PageChecksum checksum)
    {
        for (ulong gpa = start; gpa < end;)
        {
            ulong length = Math.Min(MostAtOnce, end - gpa);
            if (!memory.TryGetSpan(gpa, length, out Span<byte> bytes))
            {
                throw new InvalidOperationException($"guest RAM does not hold {gpa:x}");
            }

            ulong offset = region.FileOffset + (gpa - region.Gpa);
            int first = -1;
            for (int i = 0; i <= bytes.Length; i += GuestMemory.PageSize)
            {
                bool data = i < bytes.Length && !PageChecksum.IsZero(bytes.Slice(i, GuestMemory.PageSize));
                if (data)
                {
                    checksum.Append((offset + (ulong)i) / GuestMemory.PageSize, bytes.Slice(i, GuestMemory.PageSize));
                    first = first < 0 ? i : first;
                }
                else if (first >= 0)
                {
                    HostFile.WriteAllAt(file, bytes[first..i], (long)offset + first, "the memory file");
                    first = -1;
                }
            }

            gpa += length;
        }
    }
}
