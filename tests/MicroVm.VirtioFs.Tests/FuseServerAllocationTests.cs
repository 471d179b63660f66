using System.Runtime.InteropServices;
using MicroVm.Linux.Native;
using MicroVm.Tests.Shared;
using MicroVm.Virtio;
using MicroVm.VirtioFs.Descriptors;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;
using Xunit;

namespace MicroVm.VirtioFs.Tests;

/// <summary>The server called without queues, on a thread of its own, as its workers do.</summary>
public sealed class FuseServerAllocationTests : IDisposable
{
    private readonly TempTree _tree = new();

    public void Dispose() => _tree.Dispose();

    [Theory]
    [InlineData(FuseOpcode.FUSE_LOOKUP)]
    [InlineData(FuseOpcode.FUSE_GETATTR)]
    [InlineData(FuseOpcode.FUSE_READ)]
    [InlineData(FuseOpcode.FUSE_WRITE)]
    [InlineData(FuseOpcode.FUSE_OPEN)]
    [InlineData(FuseOpcode.FUSE_READDIRPLUS)]
    [InlineData(FuseOpcode.FUSE_GETXATTR)]
    [InlineData(FuseOpcode.FUSE_SETLK)]
    public void A_request_allocates_nothing(FuseOpcode opcode)
    {
        _tree.Write("f", "content");
        long allocated = -1;
        Exception? failure = null;
        Thread thread = new(() =>
        {
            try
            {
                allocated = Measure(opcode);
            }
            catch (Exception e)
            {
                failure = e;
            }
        });
        thread.Start();
        thread.Join();
        Assert.Null(failure);
        Assert.Equal(0, allocated);
    }

    [Fact]
    public void A_guest_at_its_bound_of_handles_gets_enfile_and_goes_on_when_it_lets_go() => OnThread(() =>
    {
        using FuseServer server = new(new FdBudget(8)); // three handles
        Assert.True(server.TryAddExport(FuseClient.Export("x", _tree.Share), out _));
        using FuseRequest request = server.PrepareThread();
        using Direct direct = new(server, request);
        direct.Init();
        _tree.Write("a", "");
        _tree.Write("b", "");
        ulong root = direct.Lookup(1, "x").Node;
        ulong a = direct.Lookup(root, "a").Node;
        (int error, ulong b) = direct.Lookup(root, "b");
        Assert.Equal(0, error);
        ulong handle = direct.Open(FuseOpcode.FUSE_OPEN, a, Libc.O_RDONLY);
        direct.Open(FuseOpcode.FUSE_OPENDIR, root, 0);
        direct.Open(FuseOpcode.FUSE_OPENDIR, 1, 0);
        (FuseOpcode Opcode, ulong Node, byte[] Args)[] opens =
        [
            (FuseOpcode.FUSE_OPEN, b, FuseClient.Bytes(default(fuse_open_in))),
            (FuseOpcode.FUSE_CREATE, root, FuseClient.Join(new byte[16], FuseClient.Text("c"))),
            (FuseOpcode.FUSE_OPENDIR, root, FuseClient.Bytes(default(fuse_open_in))),
            (FuseOpcode.FUSE_OPENDIR, 1, FuseClient.Bytes(default(fuse_open_in))),
        ];
        Assert.All(opens, o =>
        {
            direct.Put(o.Opcode, o.Node, o.Args, 200);
            direct.Run();
            Assert.Equal(-(int)Linux.Errno.ENFILE, direct.Error);
        });
        Assert.Equal(2, Directory.GetFileSystemEntries(_tree.Share).Length);
        direct.Put(FuseOpcode.FUSE_RELEASE, a, FuseClient.Bytes(new fuse_release_in { fh = handle }), 0);
        direct.Run();
        direct.Open(FuseOpcode.FUSE_OPEN, b, Libc.O_RDONLY);
    });

    [Fact]
    public void A_tree_of_more_files_than_descriptors_is_known_and_found_again() => OnThread(() =>
    {
        using FuseServer server = new(new FdBudget(40));
        Assert.True(server.TryAddExport(FuseClient.Export("x", _tree.Share), out _));
        using FuseRequest request = server.PrepareThread();
        using Direct direct = new(server, request);
        direct.Init();
        ulong root = direct.Lookup(1, "x").Node;
        Dictionary<string, ulong> nodes = [];
        for (int i = 0; i < 400; i++)
        {
            string folder = $"d{i / 10}";
            Directory.CreateDirectory(_tree.At(folder));
            _tree.Write($"{folder}/f{i}", $"{i}");
            nodes[folder] = direct.Lookup(root, folder).Node;
            nodes[$"{folder}/f{i}"] = direct.Lookup(nodes[folder], $"f{i}").Node;
        }

        Assert.InRange(server.Upkeep.IdleCount, 1, 10);
        foreach ((string path, ulong node) in nodes)
        {
            direct.Put(FuseOpcode.FUSE_GETATTR, node, new byte[16], 200);
            direct.Run();
            Assert.Equal(0, direct.Error);
            Assert.Equal(TempTree.Stat(_tree.At(path)).stx_size, direct.Reply<fuse_attr_out>().attr.size);
        }

        // What the host moved is not found under its old name, and what took its place is another file.
        File.Delete(_tree.At("d0/f0"));
        File.Move(_tree.At("d0/f1"), _tree.At("d0/f0"));
        direct.Put(FuseOpcode.FUSE_GETATTR, nodes["d0/f0"], new byte[16], 200);
        direct.Run();
        Assert.Equal(-(int)Linux.Errno.ESTALE, direct.Error);
        Assert.Equal(nodes["d0/f1"], direct.Lookup(nodes["d0"], "f0").Node);
        Assert.Equal(0, direct.Lookup(nodes["d0"], "f2").Error);
    });

    [Fact]
    public void Descriptors_of_files_that_are_not_used_are_closed() => OnThread(() =>
    {
        using FuseServer server = new(new FdBudget(100));
        Assert.True(server.TryAddExport(FuseClient.Export("x", _tree.Share), out _));
        using FuseRequest request = server.PrepareThread();
        using Direct direct = new(server, request);
        direct.Init();
        int notified = 0;
        server.Upkeep.OnIdleFiles(() => notified++);
        Directory.CreateDirectory(_tree.At("d"));
        _tree.Write("d/a", "");
        _tree.Write("d/b", "");
        ulong d = direct.Lookup(direct.Lookup(1, "x").Node, "d").Node;
        Assert.Equal(0, notified);
        ulong a = direct.Lookup(d, "a").Node;
        ulong b = direct.Lookup(d, "b").Node;
        ulong handle = direct.Open(FuseOpcode.FUSE_OPEN, b, Libc.O_RDONLY);
        Assert.Equal((1, 2), (notified, server.Upkeep.IdleCount));
        Assert.True(server.Upkeep.CloseIdleFiles());
        Assert.False(server.Upkeep.CloseIdleFiles());
        Assert.Equal(1, server.Upkeep.IdleCount);
        Assert.True(direct.Attributes(a) >= 0);
        Assert.Equal((2, 2), (notified, server.Upkeep.IdleCount));

        // An open file keeps its inode's descriptor, whatever becomes of its name.
        File.Delete(_tree.At("d/b"));
        server.Upkeep.CloseIdleFiles();
        server.Upkeep.CloseIdleFiles();
        Assert.Equal(0, direct.Attributes(b));
        direct.Put(FuseOpcode.FUSE_RELEASE, b, FuseClient.Bytes(new fuse_release_in { fh = handle }), 0);
        direct.Run();
        server.Upkeep.CloseIdleFiles();
        server.Upkeep.CloseIdleFiles();
        Assert.Equal(-(int)Linux.Errno.ESTALE, direct.Attributes(b));
    });

    private static void OnThread(Action action)
    {
        Exception? failure = null;
        Thread thread = new(() =>
        {
            try
            {
                action();
            }
            catch (Exception e)
            {
                failure = e;
            }
        });
        thread.Start();
        thread.Join();
        Assert.Null(failure);
    }

    private long Measure(FuseOpcode opcode)
    {
        using FuseServer server = new(new FdBudget(10_000));
        Assert.True(server.TryAddExport(FuseClient.Export("x", _tree.Share), out _));
        using FuseRequest request = server.PrepareThread();
        using Direct direct = new(server, request);
        direct.Init();
        ulong root = direct.Lookup(1, "x").Node;
        ulong f = direct.Lookup(root, "f").Node;
        ulong fh = direct.Open(FuseOpcode.FUSE_OPEN, f, Libc.O_RDWR);
        ulong dh = direct.Open(FuseOpcode.FUSE_OPENDIR, root, 0);
        (ulong node, byte[] args, int room) = opcode switch
        {
            FuseOpcode.FUSE_LOOKUP => (root, FuseClient.Text("f"), 128),
            FuseOpcode.FUSE_GETATTR => (f, new byte[16], 104),
            FuseOpcode.FUSE_READ => (f, FuseClient.ReadArgs(fh, 0, 4096), 4096),
            FuseOpcode.FUSE_WRITE => (f, FuseClient.WriteArgs(fh, 0, new byte[4096]), 8),
            FuseOpcode.FUSE_OPEN => (f, new byte[8], 16),
            FuseOpcode.FUSE_SETLK => (f, FuseClient.Bytes(new fuse_lk_in { fh = fh, owner = 1, lk = new() { end = 9, type = Libc.F_WRLCK } }), 0),
            FuseOpcode.FUSE_READDIRPLUS => (root, FuseClient.ReadArgs(dh, 0, 4096), 4096),
            _ => (f, FuseClient.GetXattrArgs("security.capability", 0), 8),
        };
        direct.Put(opcode, node, args, room);
        for (int i = 0; i < 100; i++)
        {
            direct.Run();
        }

        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < 1000; i++)
        {
            direct.Run();
        }

        return GC.GetAllocatedBytesForCurrentThread() - before;
    }

    /// <summary>One chain in unmanaged memory, sent as often as wanted.</summary>
    private sealed unsafe class Direct(FuseServer server, FuseRequest request) : IDisposable
    {
        private const int Half = 1 << 16;
        private readonly byte* _memory = (byte*)NativeMemory.AllocZeroed(2 * Half);
        private readonly DescriptorChain _chain = new(8);
        private uint _requestLength;
        private uint _replyLength;

        public int Error => ((fuse_out_header*)(_memory + Half))->error;

        private byte* Payload => _memory + Half + sizeof(fuse_out_header);

        public T Reply<T>()
            where T : unmanaged => *(T*)Payload;

        /// <summary>Asks for an inode's attributes; the error.</summary>
        public int Attributes(ulong node)
        {
            Put(FuseOpcode.FUSE_GETATTR, node, new byte[16], 200);
            Run();
            return Error;
        }

        public void Put(FuseOpcode opcode, ulong node, byte[] args, int room)
        {
            fuse_in_header header = new() { len = (uint)(40 + args.Length), opcode = (uint)opcode, nodeid = node };
            FuseClient.Join(FuseClient.Bytes(header), args).CopyTo(new Span<byte>(_memory, Half));
            _requestLength = header.len;
            _replyLength = (uint)(16 + room);
        }

        public void Run()
        {
            _chain.Clear(0);
            _chain.TryAppend(_memory, 40, writable: false);
            _chain.TryAppend(_memory + 40, _requestLength - 40, writable: false);
            _chain.TryAppend(_memory + Half, 16, writable: true);
            _chain.TryAppend(_memory + Half + 16, _replyLength - 16, writable: true);
            _ = server.Process(request, _chain);
        }

        public void Init()
        {
            Put(FuseOpcode.FUSE_INIT, 0, FuseClient.Bytes(new fuse_init_in { major = 7, minor = 38, flags = uint.MaxValue }), 64);
            Run();
            Assert.Equal(0, Error);
        }

        public (int Error, ulong Node) Lookup(ulong parent, string name)
        {
            Put(FuseOpcode.FUSE_LOOKUP, parent, FuseClient.Text(name), 128);
            Run();
            return (Error, *(ulong*)Payload);
        }

        public ulong Open(FuseOpcode opcode, ulong node, int flags)
        {
            Put(opcode, node, FuseClient.Bytes(new fuse_open_in { flags = (uint)flags }), 16);
            Run();
            Assert.Equal(0, Error);
            return *(ulong*)Payload;
        }

        public void Dispose()
        {
            _chain.Dispose();
            NativeMemory.Free(_memory);
        }
    }
}
