using System.Diagnostics;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Tests.Shared;
using MicroVm.Virtio;
using MicroVm.VirtioFs.Dax;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VmmControl;
using Xunit;

namespace MicroVm.VirtioFs.Tests.Dax;

/// <summary>SETUPMAPPING and REMOVEMAPPING, as a kernel sends them and as none would.</summary>
public sealed unsafe class MappingRequestTests : IDisposable
{
    private const ulong Slot = DaxWindow.SlotLength;
    private const ulong None = ulong.MaxValue;
    private const uint Read = Fuse.FUSE_SETUPMAPPING_FLAG_READ;
    private const uint Write = Fuse.FUSE_SETUPMAPPING_FLAG_WRITE;
    private readonly TempTree _tree = new();
    private readonly List<FuseClient> _clients = [];

    public MappingRequestTests()
    {
        _tree.Write("f", new string('c', 8192));
        Directory.CreateDirectory(_tree.At("d"));
    }

    public void Dispose()
    {
        _clients.ForEach(c => c.Dispose());
        _tree.Dispose();
    }

    [Fact]
    public void A_kernel_that_knows_when_to_map_is_told_of_files_and_a_mapping_is_the_file()
    {
        DaxWindow window = new(2 * Slot);
        FuseClient client = Client(window);
        Assert.Equal(DaxWindow.SlotShift, client.InitReply.map_alignment);
        fuse_entry_out entry = client.Lookup(client.Root, "f");
        Assert.Equal(Fuse.FUSE_ATTR_DAX, entry.attr.flags);
        Assert.Equal(Fuse.FUSE_ATTR_DAX, client.GetAttr(entry.nodeid).flags);
        Assert.Equal(0u, client.Lookup(client.Root, "d").attr.flags);
        Assert.True(client.Guest.Device.TryGetSharedMemory(0, out ulong gpa, out ulong length));
        Assert.Equal((FsGuest.WindowGpa, 2 * Slot), (gpa, length));
        Assert.False(client.Guest.Device.TryGetSharedMemory(1, out _, out _));

        Assert.Equal(Errno.OK, Map(client, entry.nodeid, Slot, Read | Write));
        ((byte*)window.Address)[Slot + 1] = (byte)'!';
        Assert.StartsWith("c!c", _tree.Read("f"));
        Assert.Equal(1, client.Counter("fs.mappings"));
        Assert.Equal(Errno.OK, Remove(client, entry.nodeid, (Slot, Slot)));
        Assert.Equal(0, client.Counter("fs.mappings"));
    }

    [Fact]
    public void Of_a_tree_of_its_own_a_guest_maps_what_it_writes()
    {
        FuseClient client = Client(new DaxWindow(Slot), cache: FsCache.Exclusive);
        Assert.Equal(Fuse.FUSE_ATTR_DAX | GuestKernelFlags.DaxWhenWritable, client.Lookup(client.Root, "f").attr.flags);
    }

    // Whatever a kernel asks for: those pages are everybody's who uses the image.
    [SkippableFact]
    public void No_guest_gets_the_pages_of_an_images_file()
    {
        Skip.IfNot(TempTree.IsRoot, "needs root: mounts an overlay");
        foreach (string folder in (string[])["lower", "upper", "work", "merged"])
        {
            Directory.CreateDirectory(_tree.At(folder));
        }

        _tree.Write("lower/image", new string('i', 8192));

        string options = $"lowerdir={_tree.At("lower")},upperdir={_tree.At("upper")},workdir={_tree.At("work")}";
        using Process mount = Process.Start("mount", ["-t", "overlay", "overlay", "-o", options, _tree.At("merged")]);
        mount.WaitForExit();
        Skip.IfNot(mount.ExitCode == 0, "no overlay can be mounted here");
        try
        {
            DaxWindow window = new(Slot);
            FuseClient client = Client(window, cache: FsCache.Exclusive);
            ulong merged = client.Lookup(client.Root, "merged").nodeid;
            ulong node = client.Lookup(merged, "image").nodeid;
            Assert.Equal(Errno.OK, Map(client, node, 0, Read));
            Assert.Equal((byte)'i', ((byte*)window.Address)[0]);

            // What is mapped is a copy, where the image's file stays as it was.
            File.WriteAllText(_tree.At("merged/image"), new string('m', 8192));
            Assert.Equal((byte)'m', ((byte*)window.Address)[0]);
            Assert.StartsWith("i", _tree.Read("lower/image"));
            Assert.True(File.Exists(_tree.At("upper/image")));
        }
        finally
        {
            using Process umount = Process.Start("umount", ["-l", _tree.At("merged")]);
            umount.WaitForExit();
        }
    }

    [Fact]
    public void A_tree_of_a_guests_own_that_it_may_not_change_is_not_mapped()
    {
        FuseClient client = Client(new DaxWindow(Slot), cache: FsCache.Exclusive, readOnly: true);
        Assert.Equal(Errno.EROFS, Map(client, client.Walk("f"), 0, Read));
        Assert.Equal(0, client.Counter("fs.mappings"));
    }

    [Theory]
    [InlineData(0u)]
    [InlineData(2u)]
    [InlineData(1u << 28)]
    public void Another_kernel_gets_no_mappings_and_nothing_else_changes(uint flags2)
    {
        FuseClient client = Client(new DaxWindow(Slot));
        fuse_init_out reply = client.Init(flags2: flags2);
        Assert.Equal(0u, reply.flags & Fuse.FUSE_MAP_ALIGNMENT);
        Assert.Equal(0u, reply.flags2);
        ulong root = client.Lookup(1, "x").nodeid;
        fuse_entry_out entry = client.Lookup(root, "f");
        Assert.Equal(0u, entry.attr.flags);
        Assert.Equal(Errno.ENOSYS, Map(client, entry.nodeid, 0, Read));
        Assert.Equal(Errno.ENOSYS, Remove(client, entry.nodeid, (0, Slot)));
    }

    [Fact]
    public void A_device_without_a_window_has_no_region_and_no_mappings()
    {
        FuseClient client = new(_tree.Share);
        _clients.Add(client);
        _ = client.Init(flags2: FuseClient.AllFlags);
        Assert.False(client.Guest.Device.TryGetSharedMemory(0, out _, out _));
        Assert.Equal(Errno.ENOSYS, Map(client, client.Lookup(client.Lookup(1, "x").nodeid, "f").nodeid, 0, Read));
    }

    [Theory]
    [InlineData(0ul, 0ul, Slot, 0ul)]
    [InlineData(0ul, 0ul, Slot, 4ul)]
    [InlineData(0ul, 0ul, Slot, ulong.MaxValue)]
    [InlineData(0ul, 0ul, 0ul, 2ul)]
    [InlineData(0ul, 0ul, 4096ul, 2ul)]
    [InlineData(0ul, 0ul, 2 * Slot, 2ul)]
    [InlineData(0ul, 0ul, ulong.MaxValue, 2ul)]
    [InlineData(0ul, 4096ul, Slot, 2ul)]
    [InlineData(0ul, ulong.MaxValue - Slot + 1, Slot, 2ul)]
    [InlineData(0ul, (ulong)long.MaxValue + 1, Slot, 2ul)]
    [InlineData(1ul, 0ul, Slot, 2ul)]
    [InlineData(2 * Slot, 0ul, Slot, 2ul)]
    [InlineData(ulong.MaxValue - Slot + 1, 0ul, Slot, 2ul)]
    public void Ranges_and_flags_that_cannot_be_are_refused(ulong moffset, ulong foffset, ulong length, ulong flags)
    {
        FuseClient client = Client(new DaxWindow(2 * Slot));
        byte[] request = FuseClient.Bytes(new fuse_setupmapping_in { fh = None, foffset = foffset, len = length, flags = flags, moffset = moffset });
        Assert.Equal(Errno.EINVAL, client.Error(FuseOpcode.FUSE_SETUPMAPPING, client.Walk("f"), request));
        Assert.Equal(Errno.EINVAL, client.Error(FuseOpcode.FUSE_SETUPMAPPING, client.Walk("f"), request[..^1]));
        Assert.Equal(0, client.Counter("fs.mappings"));
    }

    [Fact]
    public void Nobody_gets_more_than_the_file_and_its_handle_allow()
    {
        FuseClient client = Client(new DaxWindow(2 * Slot));
        ulong node = client.Walk("f");
        Assert.Equal(Errno.ENODEV, Map(client, client.Walk("d"), 0, Read));
        Assert.Equal(Errno.ESTALE, Map(client, 1, 0, Read));
        Assert.Equal(Errno.ESTALE, Map(client, node + 77, 0, Read));
        Assert.Equal(Errno.EBADF, Map(client, node, 0, Read, handle: 99));
        ulong reader = client.Open(node, Libc.O_RDONLY);
        Assert.Equal(Errno.OK, Map(client, node, 0, Read, reader));
        Assert.Equal(Errno.EACCES, Map(client, node, 0, Read | Write, reader));
        Assert.Equal(Errno.EACCES, Map(client, node, 0, Read, client.Open(node, Libc.O_WRONLY)));
        Assert.Equal(Errno.OK, Map(client, node, 0, Write, client.Open(node, Libc.O_RDWR)));
    }

    [Fact]
    public void A_read_only_export_is_mapped_for_reading_only()
    {
        DaxWindow window = new(Slot);
        FuseClient client = Client(window, readOnly: true);
        Assert.Equal(Errno.EROFS, Map(client, client.Walk("f"), 0, Read | Write));
        Assert.Equal(Errno.OK, Map(client, client.Walk("f"), 0, Read));
        Assert.Contains(Maps(), line => line.StartsWith($"{window.Address:x}-", StringComparison.Ordinal) && line.Contains(" r--s ", StringComparison.Ordinal));
    }

    [Fact]
    public void Lists_of_what_to_remove_are_checked_to_the_end()
    {
        FuseClient client = Client(new DaxWindow(2 * Slot));
        ulong node = client.Walk("f");
        Assert.Equal(Errno.OK, Map(client, node, 0, Read));
        byte[] one = FuseClient.Bytes(new fuse_removemapping_one { moffset = 0, len = Slot });
        foreach (byte[] request in (byte[][])[
            [], [1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [2, 0, 0, 0, .. one], [255, 255, 255, 255, .. one], [1, 0, 0, 0, .. one[..^1]], [1, 0, 0, 0, .. one, 0]])
        {
            Assert.Equal(Errno.EINVAL, client.Error(FuseOpcode.FUSE_REMOVEMAPPING, node, request));
        }

        Assert.Equal(Errno.EINVAL, Remove(client, node, (2 * Slot, Slot)));
        Assert.Equal(Errno.EINVAL, Remove(client, node, (1, Slot)));
        Assert.Equal(1, client.Counter("fs.mappings"));
        Assert.Equal(Errno.OK, Remove(client, node, (0, Slot), (Slot, Slot)));
        Assert.Equal(0, client.Counter("fs.mappings"));
    }

    [Fact]
    public void The_end_of_a_session_and_of_an_export_unmaps()
    {
        FuseClient client = Client(new DaxWindow(2 * Slot));
        Assert.Equal(Errno.OK, Map(client, client.Walk("f"), 0, Read));
        _ = client.Init(flags2: FuseClient.AllFlags);
        Assert.Equal(0, client.Counter("fs.mappings"));
        ulong node = client.Lookup(client.Lookup(1, "x").nodeid, "f").nodeid;
        Assert.Equal(Errno.OK, Map(client, node, 0, Read));
        Assert.True(client.Guest.Device.RemoveExport("x"));
        Assert.Equal(0, client.Counter("fs.mappings"));
        Assert.Equal(Errno.ESTALE, Map(client, node, 0, Read));
    }

    [Fact]
    public void Data_goes_to_and_from_the_window_and_a_lost_page_is_an_error()
    {
        DaxWindow window = new(2 * Slot);
        FuseClient client = Client(window);
        ulong node = client.Walk("f");
        ulong handle = client.Open(node, Libc.O_RDWR);
        _tree.Write("m", new string('m', 4096));
        Assert.Equal(Errno.OK, Map(client, client.Walk("m"), 0, Read | Write));
        Assert.Equal(0, ReadInto(client, node, handle, FsGuest.WindowGpa));
        Assert.Equal(new string('c', 4096), _tree.Read("m"));
        Assert.Equal(-(int)Errno.EFAULT, ReadInto(client, node, handle, FsGuest.WindowGpa + 4096));
        Assert.Equal(-(int)Errno.EFAULT, ReadInto(client, node, handle, FsGuest.WindowGpa + Slot));
    }

    [Fact]
    public void Headers_and_queues_never_lie_in_the_window()
    {
        FuseClient client = Client(new DaxWindow(Slot));
        Assert.Equal(Errno.OK, Map(client, client.Walk("f"), 0, Read | Write));
        FsGuest guest = client.Guest;

        // The whole request, and the answer's header: copied by this process, they could be a SIGBUS.
        guest.PutDescriptor(FsGuest.Requests, 0, FsGuest.WindowGpa, 56, Descriptor.FlagNext, 1);
        guest.PutDescriptor(FsGuest.Requests, 1, FsGuest.WindowGpa + 4096, 4096, Descriptor.FlagWrite, 0);
        _ = guest.Submit(FsGuest.Requests, 0);
        Assert.Equal(new string('c', 8192), _tree.Read("f"));
        Assert.Empty(guest.Failures);
        VirtqueueLayout layout = new(16, FsGuest.WindowGpa, FsGuest.AvailableRing(1), FsGuest.UsedRing(1));
        using EventFd kick = new();
        Assert.Null(Virtqueue.TryCreate(guest.Memory, layout, 16, 1, eventIndex: false, indirect: false, kick, out string? reason));
        Assert.Contains("outside guest memory", reason);
    }

    private static string[] Maps() => File.ReadAllLines("/proc/self/maps");

    private static Errno Map(FuseClient client, ulong node, ulong moffset, uint flags, ulong handle = None) => client.Error(
        FuseOpcode.FUSE_SETUPMAPPING, node, FuseClient.Bytes(new fuse_setupmapping_in { fh = handle, len = Slot, flags = flags, moffset = moffset }));

    private static Errno Remove(FuseClient client, ulong node, params (ulong Offset, ulong Length)[] ranges) => client.Error(
        FuseOpcode.FUSE_REMOVEMAPPING,
        node,
        [.. BitConverter.GetBytes(ranges.Length), .. ranges.SelectMany(r => FuseClient.Bytes(new fuse_removemapping_one { moffset = r.Offset, len = r.Length }))]);

    /// <summary>READ of a page whose payload goes to <paramref name="gpa"/>; the answer's error.</summary>
    private static int ReadInto(FuseClient client, ulong node, ulong handle, ulong gpa)
    {
        const ulong request = 0x200000, answer = 0x201000;
        fuse_read_in read = new() { fh = handle, size = 4096 };
        fuse_in_header header = new() { len = (uint)(sizeof(fuse_in_header) + sizeof(fuse_read_in)), opcode = (uint)FuseOpcode.FUSE_READ, nodeid = node, unique = 5 };
        FsGuest guest = client.Guest;
        Assert.True(guest.Memory.TryWrite(request, FuseClient.Join(FuseClient.Bytes(header), FuseClient.Bytes(read))));
        guest.PutDescriptor(FsGuest.Requests, 0, request, header.len, Descriptor.FlagNext, 1);
        guest.PutDescriptor(FsGuest.Requests, 1, answer, (uint)sizeof(fuse_out_header), Descriptor.FlagWrite | Descriptor.FlagNext, 2);
        guest.PutDescriptor(FsGuest.Requests, 2, gpa, 4096, Descriptor.FlagWrite, 0);
        _ = guest.Submit(FsGuest.Requests, 0);
        Assert.True(guest.Memory.TryRead(answer, out fuse_out_header reply));
        return reply.error;
    }

    private FuseClient Client(DaxWindow window, bool readOnly = false, FsCache cache = FsCache.Shared)
    {
        FuseClient client = new(window, _tree.Share, readOnly, cache);
        _clients.Add(client);
        return client;
    }
}
