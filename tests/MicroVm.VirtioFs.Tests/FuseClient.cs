using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Dax;
using MicroVm.VirtioFs.Descriptors;
using MicroVm.VirtioFs.Exports;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VmmControl;
using Xunit;

namespace MicroVm.VirtioFs.Tests;

/// <summary>A FUSE kernel side for tests: speaks the protocol to a real device over real queues.</summary>
internal sealed class FuseClient : IDisposable
{
    public const uint AllFlags = 0x7FFFFFFF;
    private ulong _unique = 1000;

    public FuseClient(string directory, bool readOnly = false, FsCache cache = FsCache.Shared)
        : this(Export("x", directory, readOnly, cache)) => Root = Lookup(1, "x").nodeid;

    public FuseClient(params VirtioFsExport[] exports)
        : this(FdBudget.OfProcess, exports)
    {
    }

    public FuseClient(FdBudget budget, params VirtioFsExport[] exports)
        : this(budget, false, exports)
    {
    }

    public FuseClient(FdBudget budget, bool stripSetId, params VirtioFsExport[] exports)
    {
        Guest = new FsGuest(budget, stripSetId, exports);
        InitReply = Init();
    }

    /// <summary>A guest whose kernel maps files by <paramref name="window"/>, which is taken over.</summary>
    public FuseClient(DaxWindow window, string directory, bool readOnly = false, FsCache cache = FsCache.Shared)
    {
        Guest = new FsGuest(FdBudget.OfProcess, false, window, Export("x", directory, readOnly, cache));
        InitReply = Init(flags2: AllFlags);
        Root = Lookup(1, "x").nodeid;
    }

    public FuseClient(SafeFd sockets, params VirtioFsExport[] exports)
    {
        Guest = new FsGuest(sockets, exports);
        InitReply = Init();
    }

    public FsGuest Guest { get; }

    /// <summary>The node id of export "x".</summary>
    public ulong Root { get; }

    public fuse_init_out InitReply { get; }

    public uint Uid { get; set; }

    public uint Gid { get; set; }

    /// <summary>The guest's thread that asks.</summary>
    public uint Thread { get; set; } = 1;

    public Errno LastError { get; private set; }

    public static VirtioFsExport Export(string name, string path, bool readOnly = false, FsCache cache = FsCache.Shared) =>
        new(name, SafeFd.From(Libc.open(path, Libc.O_PATH | Libc.O_CLOEXEC, 0), "open", path), readOnly, cache);

    public static byte[] Bytes<T>(T value)
        where T : unmanaged => MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)).ToArray();

    public static T Parse<T>(byte[] data, int offset = 0)
        where T : unmanaged
    {
        Assert.True(data.Length >= offset + Unsafe.SizeOf<T>(), $"{data.Length} bytes hold no {typeof(T).Name} at {offset}");
        return MemoryMarshal.Read<T>(data.AsSpan(offset));
    }

    public static byte[] Text(string s) => [.. Encoding.UTF8.GetBytes(s), 0];

    public static byte[] Join(params byte[][] parts) => [.. parts.SelectMany(p => p)];

    /// <summary>FUSE_HOST_EVENTS, by which this project's guest kernel is known.</summary>
    public const uint OfThisKernel = 1u << 29;

    public fuse_init_out Init(uint minor = 38, uint flags = AllFlags, uint flags2 = OfThisKernel)
    {
        fuse_init_in init = new() { major = 7, minor = minor, max_readahead = 131072, flags = flags, flags2 = flags2 };
        return Parse<fuse_init_out>(Ok(FuseOpcode.FUSE_INIT, 0, Bytes(init), 64));
    }

    /// <summary>Sends a request; the answer's payload. Sets <see cref="LastError"/>.</summary>
    public byte[] Call(FuseOpcode opcode, ulong node, byte[] args, int room = 4096)
    {
        fuse_in_header header = new()
        {
            len = (uint)(40 + args.Length),
            opcode = (uint)opcode,
            unique = ++_unique,
            nodeid = node,
            uid = Uid,
            gid = Gid,
            pid = Thread,
        };
        (uint written, byte[] reply) = Guest.Send(FsGuest.Requests, [Bytes(header), args], room == 0 ? [16] : [16, room]);
        fuse_out_header head = Parse<fuse_out_header>(reply);
        Assert.Equal(header.unique, head.unique);
        Assert.Equal(written, head.len);
        Assert.InRange(head.error, -4095, 0);
        LastError = (Errno)(-head.error);
        if (head.error != 0)
        {
            Assert.Equal(16u, head.len);
        }

        return reply[16..(int)written];
    }

    public byte[] Ok(FuseOpcode opcode, ulong node, byte[] args, int room = 4096)
    {
        byte[] reply = Call(opcode, node, args, room);
        Assert.Equal(Errno.OK, LastError);
        return reply;
    }

    public Errno Error(FuseOpcode opcode, ulong node, byte[] args, int room = 4096)
    {
        _ = Call(opcode, node, args, room);
        return LastError;
    }

    public fuse_entry_out Lookup(ulong parent, string name) => Parse<fuse_entry_out>(Ok(FuseOpcode.FUSE_LOOKUP, parent, Text(name)));

    public Errno LookupError(ulong parent, string name) => Error(FuseOpcode.FUSE_LOOKUP, parent, Text(name));

    /// <summary>Looks a path up component by component below the export.</summary>
    public ulong Walk(string path)
    {
        ulong node = Root;
        foreach (string part in path.Split('/', StringSplitOptions.RemoveEmptyEntries))
        {
            node = Lookup(node, part).nodeid;
        }

        return node;
    }

    public void Forget(ulong node, ulong count, int queue = FsGuest.HighPriority)
    {
        fuse_in_header header = new() { len = 48, opcode = (uint)FuseOpcode.FUSE_FORGET, nodeid = node, unique = ++_unique };
        (uint written, _) = Guest.Send(queue, [Join(Bytes(header), Bytes(new fuse_forget_in { nlookup = count }))], []);
        Assert.Equal(0u, written);
    }

    public fuse_attr GetAttr(ulong node) =>
        Parse<fuse_attr_out>(Ok(FuseOpcode.FUSE_GETATTR, node, Bytes(default(fuse_getattr_in)))).attr;

    public fuse_attr SetAttr(ulong node, fuse_setattr_in change) =>
        Parse<fuse_attr_out>(Ok(FuseOpcode.FUSE_SETATTR, node, Bytes(change))).attr;

    public ulong Open(ulong node, int flags, uint openFlags = 0) =>
        Parse<fuse_open_out>(Ok(FuseOpcode.FUSE_OPEN, node, Bytes(new fuse_open_in { flags = (uint)flags, open_flags = openFlags }))).fh;

    public Errno OpenError(ulong node, int flags) =>
        Error(FuseOpcode.FUSE_OPEN, node, Bytes(new fuse_open_in { flags = (uint)flags }));

    public byte[] CreateArgs(string name, int flags, uint mode, uint umask = 0x12) =>
        Join(Bytes(new fuse_create_in { flags = (uint)flags, mode = mode | Libc.S_IFREG, umask = umask }), Text(name));

    public (fuse_entry_out Entry, ulong Handle) Create(ulong parent, string name, int flags = Libc.O_RDWR, uint mode = 0x1A4)
    {
        byte[] reply = Ok(FuseOpcode.FUSE_CREATE, parent, CreateArgs(name, flags, mode));
        return (Parse<fuse_entry_out>(reply), Parse<fuse_open_out>(reply, 128).fh);
    }

    public static byte[] ReadArgs(ulong handle, ulong offset, uint size) =>
        Bytes(new fuse_read_in { fh = handle, offset = offset, size = size });

    public byte[] Read(ulong node, ulong handle, ulong offset, uint size) =>
        Ok(FuseOpcode.FUSE_READ, node, ReadArgs(handle, offset, size), (int)size);

    public static byte[] WriteArgs(ulong handle, ulong offset, byte[] data, uint flags = 0) =>
        Join(Bytes(new fuse_write_in { fh = handle, offset = offset, size = (uint)data.Length, write_flags = flags }), data);

    public uint Write(ulong node, ulong handle, ulong offset, byte[] data, uint flags = 0) =>
        Parse<fuse_write_out>(Ok(FuseOpcode.FUSE_WRITE, node, WriteArgs(handle, offset, data, flags))).size;

    public void Release(ulong node, ulong handle, bool directory = false) => Ok(
        directory ? FuseOpcode.FUSE_RELEASEDIR : FuseOpcode.FUSE_RELEASE, node, Bytes(new fuse_release_in { fh = handle }));

    public fuse_entry_out MakeDirectory(ulong parent, string name, uint mode = 0x1FF, uint umask = 0x12) => Parse<fuse_entry_out>(
        Ok(FuseOpcode.FUSE_MKDIR, parent, Join(Bytes(new fuse_mkdir_in { mode = mode, umask = umask }), Text(name))));

    public static byte[] NodeArgs(string name, uint mode, uint device = 0) =>
        Join(Bytes(new fuse_mknod_in { mode = mode, rdev = device, umask = 0x12 }), Text(name));

    public fuse_entry_out Symlink(ulong parent, string name, string target) =>
        Parse<fuse_entry_out>(Ok(FuseOpcode.FUSE_SYMLINK, parent, Join(Text(name), Text(target))));

    public static byte[] LinkArgs(ulong node, string name) => Join(Bytes(new fuse_link_in { oldnodeid = node }), Text(name));

    public static byte[] RenameArgs(string from, ulong toParent, string to, uint flags) =>
        Join(Bytes(new fuse_rename2_in { newdir = toParent, flags = flags }), Text(from), Text(to));

    public Errno Rename(ulong fromParent, string from, ulong toParent, string to, uint flags = 0) =>
        Error(FuseOpcode.FUSE_RENAME2, fromParent, RenameArgs(from, toParent, to, flags));

    public ulong OpenDirectory(ulong node) =>
        Parse<fuse_open_out>(Ok(FuseOpcode.FUSE_OPENDIR, node, Bytes(default(fuse_open_in)))).fh;

    /// <summary>Lists a directory with answers of <paramref name="size"/> bytes, resuming by offset.</summary>
    public List<(string Name, fuse_dirent Dirent, fuse_entry_out Entry)> List(ulong node, bool plus, uint size = 4096)
    {
        ulong handle = OpenDirectory(node);
        List<(string, fuse_dirent, fuse_entry_out)> all = [];
        ulong offset = 0;
        while (true)
        {
            byte[] data = Ok(plus ? FuseOpcode.FUSE_READDIRPLUS : FuseOpcode.FUSE_READDIR, node, ReadArgs(handle, offset, size), (int)size);
            if (data.Length == 0)
            {
                break;
            }

            foreach ((string name, fuse_dirent dirent, fuse_entry_out entry) in ParseEntries(data, plus))
            {
                all.Add((name, dirent, entry));
                offset = dirent.off;
            }
        }

        Release(node, handle, directory: true);
        return all;
    }

    public static IEnumerable<(string Name, fuse_dirent Dirent, fuse_entry_out Entry)> ParseEntries(byte[] data, bool plus)
    {
        for (int at = 0; at < data.Length;)
        {
            fuse_entry_out entry = plus ? Parse<fuse_entry_out>(data, at) : default;
            at += plus ? 128 : 0;
            fuse_dirent dirent = Parse<fuse_dirent>(data, at);
            string name = Encoding.UTF8.GetString(data, at + 24, (int)dirent.namelen);
            at += (24 + (int)dirent.namelen + 7) & ~7;
            yield return (name, dirent, entry);
        }
    }

    public static byte[] SetXattrArgs(string name, byte[] value, uint flags = 0)
    {
        byte[] head = new byte[16];
        BitConverter.TryWriteBytes(head, value.Length);
        BitConverter.TryWriteBytes(head.AsSpan(4), flags);
        return Join(head, Text(name), value);
    }

    public static byte[] GetXattrArgs(string name, uint size) => Join(Bytes(new fuse_getxattr_in { size = size }), Text(name));

    public long Counter(string name)
    {
        long found = 0;
        Guest.Device.CollectCounters((n, v) => found = n == name ? v : found);
        return found;
    }

    public void Dispose() => Guest.Dispose();
}
