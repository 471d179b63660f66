using System.Buffers.Binary;
using MicroVm.Linux.Native;
using MicroVm.Memory;
using MicroVm.Virtio;

namespace MicroVm.Vmm.Devices.Balloon;

/// <summary>
/// Carries out a balloon's requests: what the driver does not use goes back to the host. A guest that touches such memory again finds
/// zeroes, or what the kernel's file holds there; both are content that the driver may not rely on (virtio 1.2, 5.5.6 and 5.5.7).
/// </summary>
internal sealed unsafe class BalloonRequests(GuestMemory memory, BalloonCounters counters)
{
    /// <summary>
    /// Most bytes given back for one report; a report is a hint, so what is beyond is left alone (5.5.6.7). Linux reports 32 blocks of 4 MiB
    /// at most.
    /// </summary>
    public const ulong MaxReportBytes = 1ul << 30;

    /// <summary>Most pages of one request to inflate; Linux asks for 256 at most.</summary>
    public const int MaxInflatedPages = 16384;

    private const int PagesAtOnce = 256;

    /// <summary>Reporting queue: each device-writable buffer is memory that is free while the device has the request (5.5.6.7).</summary>
    public void Report(DescriptorChain chain)
    {
        ulong left = MaxReportBytes;
        for (int i = 0; i < chain.WritableCount && left > 0; i++)
        {
            Libc.iovec segment = chain.Writable[i];
            ulong length = Math.Min(segment.iov_len, left);
            left -= length;
            Count(memory.TryRelease(segment.iov_base, length, out ulong released), released);
        }

        counters.Reports++;
    }

    /// <summary>Inflate queue: 32-bit numbers of pages of 4 KiB that the driver will not use (5.5.6). Neighbours go back in one piece.</summary>
    /// <returns>False when a page is not in guest RAM, or there are too many; <paramref name="broken"/> says so.</returns>
    public bool TryInflate(DescriptorChain chain, out string broken)
    {
        broken = "";
        if (chain.ReadableLength > MaxInflatedPages * sizeof(uint))
        {
            broken = $"a request to inflate has more than {MaxInflatedPages} pages";
            return false;
        }

        Span<byte> bytes = stackalloc byte[PagesAtOnce * sizeof(uint)];
        PageRun run = default;
        for (ulong offset = 0; ; offset += (ulong)bytes.Length)
        {
            int pages = chain.CopyFromReadable(offset, bytes) / sizeof(uint);
            for (int i = 0; i < pages; i++)
            {
                ulong gpa = (ulong)BinaryPrimitives.ReadUInt32LittleEndian(bytes[(i * sizeof(uint))..]) * GuestMemory.PageSize;
                if (!memory.Contains(gpa, GuestMemory.PageSize))
                {
                    broken = $"a page to inflate by, {gpa:x}, is outside guest memory (5.5.6)";
                    return false;
                }

                if (!run.TryExtend(gpa))
                {
                    Release(run);
                    run = new PageRun(gpa);
                }
            }

            counters.InflatedPages += pages;
            if (pages < PagesAtOnce)
            {
                Release(run);
                return true;
            }
        }
    }

    /// <summary>Deflate queue: the driver uses pages again, which need nothing but to be touched.</summary>
    public void Deflate() => counters.DeflatedRequests++;

    private void Release(PageRun run)
    {
        if (run.Length > 0)
        {
            Count(memory.TryRelease(run.Gpa, run.Length, out ulong released), released);
        }
    }

    private void Count(bool done, ulong released)
    {
        counters.ReportedBytes += (long)released;
        counters.Errors += done ? 0 : 1;
    }

    /// <summary>Pages one behind the other, within one region of RAM as far as it was checked for each.</summary>
    private struct PageRun(ulong gpa)
    {
        public readonly ulong Gpa => gpa;

        public ulong Length { get; private set; } = GuestMemory.PageSize;

        /// <summary>Takes the page, if it is the next one.</summary>
        public bool TryExtend(ulong page)
        {
            bool next = Length != 0 && page == Gpa + Length;
            Length += next ? GuestMemory.PageSize : 0ul;
            return next;
        }
    }
}
