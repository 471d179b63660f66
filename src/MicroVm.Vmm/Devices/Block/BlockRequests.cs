using System.Runtime.InteropServices;
using MicroVm.Virtio;

namespace MicroVm.Vmm.Devices.Block;

/// <summary>
/// Carries requests out (virtio 1.2, 5.2.6). The header is copied before it is checked; all arithmetic on the guest's
/// sectors is done in sectors against the capacity, where it cannot overflow.
/// </summary>
internal sealed class BlockRequests(BlockBackend backend, byte[] id, bool readOnly, BlockCounters counters)
{
    /// <summary>Most data segments of a request: with header and status as many as the queue has entries (2.7.5.3.1).</summary>
    public const uint MaxSegments = 126;

    /// <summary>Longest data segment in bytes: a request moves at most 63 MiB, so that none takes long.</summary>
    public const uint MaxSegmentBytes = 512 << 10;

    /// <summary>Most ranges of a discard request.</summary>
    public const int MaxDiscardRanges = 16;

    /// <summary>Most sectors of a discard range: 1 GiB.</summary>
    public const uint MaxDiscardSectors = 1 << 21;

    /// <summary>Most sectors of the one range of a write-zeroes request, 32 MiB: on some file systems they are written.</summary>
    public const uint MaxWriteZeroesSectors = 1 << 16;

    /// <summary>The driver does not flush: every write is made durable before it is answered (5.2.6.2).</summary>
    public bool WriteThrough { get; set; }

    /// <summary>Carries out a request whose writable part ends with the status byte.</summary>
    /// <returns>Bytes written into the writable part from its start (2.7.8.2).</returns>
    public uint Execute(DescriptorChain chain)
    {
        ulong dataLength = chain.WritableLength - 1;
        BlockRequestHeader header = default;
        int n = chain.CopyFromReadable(0, MemoryMarshal.AsBytes(new Span<BlockRequestHeader>(ref header)));
        ulong filled = 0;
        BlockStatus status = n < BlockRequestHeader.Size || Math.Max(dataLength, chain.ReadableLength - (ulong)n) > MaxSegments * (ulong)MaxSegmentBytes
            ? BlockStatus.IoError
            : header.Type switch
            {
                BlockRequestType.In => Read(chain, header.Sector, dataLength, out filled),
                BlockRequestType.Out => Write(chain, header.Sector),
                BlockRequestType.Flush => Flush(),
                BlockRequestType.GetId => GetId(chain, dataLength, out filled),
                BlockRequestType.Discard => Ranges(chain, discard: true),
                BlockRequestType.WriteZeroes => Ranges(chain, discard: false),
                _ => BlockStatus.Unsupported,
            };
        counters.Errors += status == BlockStatus.IoError ? 1 : 0;
        counters.Unsupported += status == BlockStatus.Unsupported ? 1 : 0;
        ReadOnlySpan<byte> statusByte = [(byte)status];
        _ = chain.CopyToWritable(dataLength, statusByte);

        // Where the data was not all written, nothing from the start may be claimed (2.7.8.2); its length fits 32 bits
        // as a longer chain is refused.
        return filled == dataLength ? (uint)(filled + 1) : (uint)filled;
    }

    private BlockStatus Read(DescriptorChain chain, ulong sector, ulong length, out ulong filled)
    {
        filled = 0;
        if (!InRange(sector, length) || !backend.Read(chain, sector * BlockBackend.SectorSize, length))
        {
            return BlockStatus.IoError;
        }

        filled = length;
        counters.Reads++;
        counters.ReadBytes += (long)length;
        return BlockStatus.Ok;
    }

    private BlockStatus Write(DescriptorChain chain, ulong sector)
    {
        ulong length = chain.ReadableLength - BlockRequestHeader.Size;
        if (readOnly || !InRange(sector, length) || !backend.Write(chain, sector * BlockBackend.SectorSize, length))
        {
            return BlockStatus.IoError;
        }

        counters.Writes++;
        counters.WrittenBytes += (long)length;
        return WriteThrough && !backend.Flush() ? BlockStatus.IoError : BlockStatus.Ok;
    }

    private BlockStatus Flush()
    {
        counters.Flushes++;
        return readOnly || backend.Flush() ? BlockStatus.Ok : BlockStatus.IoError;
    }

    private BlockStatus GetId(DescriptorChain chain, ulong length, out ulong filled)
    {
        // NUL-padded, at most 20 bytes, without a terminating zero at 20 (5.2.6).
        filled = 0;
        if (length < (ulong)id.Length)
        {
            return BlockStatus.IoError;
        }

        filled = (ulong)chain.CopyToWritable(0, id);
        return BlockStatus.Ok;
    }

    private BlockStatus Ranges(DescriptorChain chain, bool discard)
    {
        int most = discard ? MaxDiscardRanges : 1;
        ulong length = chain.ReadableLength - BlockRequestHeader.Size;
        if (readOnly || length == 0 || length % BlockRange.Size != 0 || length / BlockRange.Size > (ulong)most)
        {
            return BlockStatus.IoError;
        }

        BlockStatus status = BlockStatus.Ok;
        for (ulong at = 0; at < length && status == BlockStatus.Ok; at += BlockRange.Size)
        {
            BlockRange range = default;
            _ = chain.CopyFromReadable(
                BlockRequestHeader.Size + at, MemoryMarshal.AsBytes(new Span<BlockRange>(ref range)));
            status = discard ? Discard(range) : WriteZeroes(range);
        }

        counters.Discards += discard ? 1 : 0;
        counters.WriteZeroes += discard ? 0 : 1;
        return status == BlockStatus.Ok && WriteThrough && !backend.Flush() ? BlockStatus.IoError : status;
    }

    private BlockStatus Discard(in BlockRange range)
    {
        // A discard with unmap or an unknown flag set is answered UNSUPP (5.2.6.2).
        return range.Flags != 0 ? BlockStatus.Unsupported
            : range.Sectors > MaxDiscardSectors || !InRange(range.Sector, (ulong)range.Sectors * BlockBackend.SectorSize)
            ? BlockStatus.IoError
            : range.Sectors == 0 ? BlockStatus.Ok
            : backend.Discard(range.Sector * BlockBackend.SectorSize, (ulong)range.Sectors * BlockBackend.SectorSize);
    }

    private BlockStatus WriteZeroes(in BlockRange range)
    {
        return (range.Flags & ~BlockRange.Unmap) != 0 ? BlockStatus.Unsupported
            : range.Sectors > MaxWriteZeroesSectors || !InRange(range.Sector, (ulong)range.Sectors * BlockBackend.SectorSize)
            ? BlockStatus.IoError
            : range.Sectors == 0 ? BlockStatus.Ok
            : backend.WriteZeroes(
                range.Sector * BlockBackend.SectorSize,
                (ulong)range.Sectors * BlockBackend.SectorSize,
                (range.Flags & BlockRange.Unmap) != 0);
    }

    /// <summary>Whole sectors, all of them below the capacity.</summary>
    private bool InRange(ulong sector, ulong length) =>
        length % BlockBackend.SectorSize == 0
        && sector <= backend.Sectors
        && length / BlockBackend.SectorSize <= backend.Sectors - sector;
}
