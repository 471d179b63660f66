using System.Runtime.InteropServices;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Devices.Block;

namespace MicroVm.Tests.Shared.Virtio;

/// <summary>A guest's block driver at request level, over a device on a file of its own.</summary>
internal sealed class BlockGuest : IDisposable
{
    private readonly string _path = System.IO.Path.GetTempFileName();
    private readonly ulong _header;
    private readonly ulong _data;
    private readonly ulong _status;

    public BlockGuest(ReadOnlySpan<byte> content, bool readOnly = false, string id = "disk-1", ulong? features = null)
    {
        File.WriteAllBytes(_path, content.ToArray());
        SafeFd file = SafeFd.From(
            Libc.openat(Libc.AT_FDCWD, _path, (readOnly ? Libc.O_RDONLY : Libc.O_RDWR) | Libc.O_CLOEXEC, 0), "open", _path);
        Device = new BlockDevice("blk0", file, readOnly, id);
        Driver = new GuestDriver(Device, features: features);
        _header = Driver.Allocate(16);
        _data = Driver.Allocate(1 << 20, 4096);
        _status = Driver.Allocate(1);
        Driver.Activate();
    }

    public BlockDevice Device { get; }

    public GuestDriver Driver { get; }

    public byte[] Content => File.ReadAllBytes(_path);

    public long Counter(string name)
    {
        long value = -1;
        Device.CollectCounters((n, v) => value = n == name ? v : value);
        return value;
    }

    /// <summary>Cuts the file behind the device's back.</summary>
    public void Truncate(long length)
    {
        using FileStream file = new(_path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite);
        file.SetLength(length);
    }

    /// <summary>Guest memory of the data segments.</summary>
    public Span<byte> Data(int length) => Driver.Span(_data, length);

    /// <summary>A request with its data in <paramref name="pieces"/> segments, the first of odd length.</summary>
    public (byte Status, uint Written) Request(uint type, ulong sector, int length, bool toGuest, int pieces = 1, bool indirect = false)
    {
        List<Segment> segments = [Header(type, sector)];
        int at = 0;
        for (int i = 0; i < pieces && at < length; i++)
        {
            int n = i == pieces - 1 ? length - at : Math.Min(length - at, Math.Max(1, (length / pieces) - 7));
            segments.Add(new Segment(_data + (ulong)at, (uint)n, toGuest));
            at += n;
        }

        segments.Add(new Segment(_status, 1, true));
        return Raw([.. segments], indirect);
    }

    /// <summary>The header segment of a request.</summary>
    public Segment Header(uint type, ulong sector)
    {
        Span<byte> header = Driver.Span(_header, 16);
        MemoryMarshal.Write(header, type);
        MemoryMarshal.Write(header[4..], 0u);
        MemoryMarshal.Write(header[8..], sector);
        return new Segment(_header, 16, false);
    }

    /// <summary>The status segment of a request.</summary>
    public Segment Status => new(_status, 1, true);

    /// <summary>A segment of the data.</summary>
    public Segment DataSegment(uint length, bool toGuest) => new(_data, length, toGuest);

    /// <summary>Any chain; waits for its answer. The status is 0xff where none was written.</summary>
    public (byte Status, uint Written) Raw(ReadOnlySpan<Segment> segments, bool indirect = false)
    {
        Driver.Span(_status, 1)[0] = 0xff;
        _ = indirect ? Driver.Queues[0].AddIndirect(segments) : Driver.Queues[0].Add(segments);
        Driver.Queues[0].Notify();
        SpinWait wait = default;
        long start = Environment.TickCount64;
        uint written;
        while (!Driver.Queues[0].TryTakeUsed(out _, out written))
        {
            if (Driver.NeedsReset is not null)
            {
                return (0xff, 0);
            }

            if (Environment.TickCount64 - start > 10_000)
            {
                throw new TimeoutException("the disk did not answer");
            }

            wait.SpinOnce();
        }

        return (Driver.Span(_status, 1)[0], written);
    }

    public void Dispose()
    {
        Device.Dispose();
        Driver.Dispose();
        File.Delete(_path);
    }
}
