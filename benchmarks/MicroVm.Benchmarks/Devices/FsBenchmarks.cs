using System.Buffers.Binary;
using System.Text;
using BenchmarkDotNet.Attributes;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Tests.Shared.Virtio;
using MicroVm.VirtioFs;
using MicroVm.VirtioFs.Exports;
using MicroVm.VirtioFs.Protocol;

namespace MicroVm.Benchmarks.Devices;

/// <summary>One virtio-fs request on a file in the page cache, to the queue's worker and back.</summary>
public class FsBenchmarks : IDisposable
{
    private const int InHeader = 40, OutHeader = 16, MaxReply = 1 << 20;
    private const ulong FuseRoot = 1;
    private readonly string _directory = Directory.CreateTempSubdirectory("microvm-bench-fs-").FullName;
    private readonly byte[] _name = Encoding.ASCII.GetBytes("file\0");
    private readonly byte[] _read = new byte[40];
    private readonly byte[] _getattr = new byte[16];
    private GuestDriver _guest = null!;
    private ulong _request;
    private ulong _reply;
    private ulong _unique;
    private ulong _folder;
    private ulong _file;

    [GlobalSetup]
    public void Setup()
    {
        File.WriteAllBytes(Path.Combine(_directory, "file"), new byte[1 << 20]);
        SafeFd fd = SafeFd.From(Libc.open(_directory, Libc.O_PATH | Libc.O_CLOEXEC, 0), "open", _directory);
        _guest = new GuestDriver(new VirtioFsDevice("bench", [new VirtioFsExport("x", fd, false)]));
        _request = _guest.Allocate(4096);
        _reply = _guest.Allocate(MaxReply + OutHeader);
        _guest.Activate();

        // fuse_init_in: major, minor, max_readahead, flags.
        byte[] init = new byte[16];
        BinaryPrimitives.WriteUInt32LittleEndian(init, 7);
        BinaryPrimitives.WriteUInt32LittleEndian(init.AsSpan(4), 38);
        BinaryPrimitives.WriteUInt32LittleEndian(init.AsSpan(8), 128 << 10);
        Send(FuseOpcode.FUSE_INIT, 0, init, 64);
        _folder = BinaryPrimitives.ReadUInt64LittleEndian(Send(FuseOpcode.FUSE_LOOKUP, FuseRoot, "x\0"u8, 128));
        _file = BinaryPrimitives.ReadUInt64LittleEndian(Send(FuseOpcode.FUSE_LOOKUP, _folder, _name, 128));
        ulong handle = BinaryPrimitives.ReadUInt64LittleEndian(Send(FuseOpcode.FUSE_OPEN, _file, new byte[8], 16));
        BinaryPrimitives.WriteUInt64LittleEndian(_read, handle);
    }

    [GlobalCleanup]
    public void Dispose()
    {
        _guest.Dispose();
        Directory.Delete(_directory, recursive: true);
        GC.SuppressFinalize(this);
    }

    [Benchmark]
    public void Lookup() => Send(FuseOpcode.FUSE_LOOKUP, _folder, _name, 128);

    [Benchmark]
    public void GetAttr() => Send(FuseOpcode.FUSE_GETATTR, _file, _getattr, 104);

    [Benchmark]
    [Arguments(4096)]
    [Arguments(131072)]
    public void Read(int bytes)
    {
        // fuse_read_in: handle, offset, size.
        BinaryPrimitives.WriteUInt32LittleEndian(_read.AsSpan(16), (uint)bytes);
        Send(FuseOpcode.FUSE_READ, _file, _read, bytes);
    }

    private Span<byte> Send(FuseOpcode opcode, ulong node, ReadOnlySpan<byte> body, int replyBytes)
    {
        // fuse_in_header: length, opcode, unique, node, and the caller's ids, which are root's.
        int length = InHeader + body.Length;
        Span<byte> request = _guest.Span(_request, length);
        request.Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(request, (uint)length);
        BinaryPrimitives.WriteUInt32LittleEndian(request[4..], (uint)opcode);
        BinaryPrimitives.WriteUInt64LittleEndian(request[8..], ++_unique);
        BinaryPrimitives.WriteUInt64LittleEndian(request[16..], node);
        body.CopyTo(request[InHeader..]);
        DriverQueue queue = _guest.Queues[1];
        queue.Add(new Segment(_request, (uint)length, false), new Segment(_reply, (uint)(OutHeader + replyBytes), true));
        queue.Notify();
        SpinWait wait = default;
        while (!queue.TryTakeUsed(out _, out _))
        {
            if (_guest.NeedsReset is { } reason)
            {
                throw new InvalidOperationException(reason);
            }

            wait.SpinOnce();
        }

        int error = BinaryPrimitives.ReadInt32LittleEndian(_guest.Span(_reply + 4, 4));
        return error == 0 ? _guest.Span(_reply + OutHeader, replyBytes) : throw new InvalidOperationException($"{opcode}: error {error}");
    }
}
