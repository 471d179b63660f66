using MicroVm.Linux.Native;
using MicroVm.Tests.Shared;
using MicroVm.Tests.Shared.Fuzz;
using MicroVm.VirtioFs.Protocol;

namespace MicroVm.VirtioFs.Tests.Fuzz;

/// <summary>The bodies of FUSE messages: each of the right form for its opcode, then spoilt. Nothing outside the tree changes.</summary>
public sealed class FuseFuzz
{
    private const int Requests = 150;
    private static readonly string[] Names = ["f", "d", "l", "new", "..", ".", "", "../secret", "/etc/passwd", "d/../..", "a\0b", "user.x", "security.capability", new('n', 300)];

    [Fact]
    public void Messages() => Fuzzing.Run("fuse", random =>
    {
        using TempTree tree = new();
        string secret = Path.Combine(tree.Base, "secret");
        File.WriteAllText(secret, "secret");
        tree.Write("f", "content");
        Directory.CreateDirectory(tree.At("d"));
        File.CreateSymbolicLink(tree.At("l"), "../secret");
        using (FuseClient fs = new(tree.Share))
        {
            ulong[] nodes = [fs.Root, fs.Walk("f"), fs.Walk("d"), fs.Walk("l"), 1];
            ulong[] handles = [fs.Open(nodes[1], Libc.O_RDWR), fs.OpenDirectory(fs.Root), fs.OpenDirectory(1)];
            for (int i = 0; i < Requests; i++)
            {
                Request(fs, random, nodes, handles);
            }
        }

        Assert.Equal("secret", File.ReadAllText(secret));
        Assert.Equal(["secret", "share"], Directory.EnumerateFileSystemEntries(tree.Base).Select(p => Path.GetFileName(p)!).Order());
    });

    private static void Request(FuseClient fs, Random random, ulong[] nodes, ulong[] handles)
    {
        ulong node = Pick(random, nodes), handle = Pick(random, handles);
        (FuseOpcode opcode, byte[] body) = Good(random, node, handle, FuseClient.Text(Names[random.Next(Names.Length)]));
        byte[] spoilt = random.Next(3) == 0 ? body : Spoiling.Bytes(body, random);
        fuse_in_header header = new()
        {
            len = random.Next(8) == 0 ? (uint)random.Next(200) : (uint)(40 + spoilt.Length),
            opcode = random.Next(16) == 0 && AnyOpcode(random) is uint any ? any : (uint)opcode,
            unique = (ulong)random.NextInt64(),
            nodeid = node,
            uid = random.Next(4) == 0 ? uint.MaxValue : 0,
            gid = random.Next(4) == 0 ? uint.MaxValue : 0,
        };
        byte[][] readable = random.Next(8) == 0
            ? [FuseClient.Join(FuseClient.Bytes(header), spoilt)]
            : [FuseClient.Bytes(header), .. spoilt.Length == 0 ? [] : new[] { spoilt }];
        int room = (int[])[1, 16, 128, 4096, 100_000] is var rooms ? rooms[random.Next(rooms.Length)] : 0;
        _ = fs.Guest.Send(random.Next(16) == 0 ? FsGuest.HighPriority : FsGuest.Requests, readable, random.Next(16) == 0 ? [] : [16, room]);
    }

    /// <summary>Those that are answered when something happens (a lock is given up, a file of the host changes) are not sent: the guest waits.</summary>
    private static uint? AnyOpcode(Random random) =>
        (uint)random.Next(70) is var any && (FuseOpcode)any is FuseOpcode.FUSE_EVENTS or FuseOpcode.FUSE_SETLKW ? null : any;

    private static ulong Pick(Random random, ulong[] known) =>
        random.Next(8) switch { 0 => (ulong)random.NextInt64(long.MinValue, long.MaxValue), 1 => (ulong)random.Next(16), _ => known[random.Next(known.Length)] };

    private static (FuseOpcode Opcode, byte[] Body) Good(Random random, ulong node, ulong handle, byte[] name)
    {
        uint size = random.Next(4) == 0 ? uint.MaxValue : (uint)random.Next(5000);
        ulong offset = random.Next(4) == 0 ? ulong.MaxValue - (ulong)random.Next(5000) : (ulong)random.Next(100_000);
        return random.Next(26) switch
        {
            0 or 1 => (FuseOpcode.FUSE_LOOKUP, name),
            2 => (FuseOpcode.FUSE_GETATTR, FuseClient.Bytes(new fuse_getattr_in { fh = handle, getattr_flags = 1 })),
            3 => (FuseOpcode.FUSE_SETATTR, FuseClient.Bytes(new fuse_setattr_in { valid = (uint)random.Next(0x2000), fh = handle, size = offset & 0xffff, mode = (uint)random.Next(0x10000) })),
            4 => (FuseOpcode.FUSE_SYMLINK, FuseClient.Join(name, FuseClient.Text("../secret"))),
            5 => (FuseOpcode.FUSE_MKNOD, FuseClient.Join(FuseClient.Bytes(new fuse_mknod_in { mode = (uint)random.Next(0x10000), rdev = size }), name)),
            6 => (FuseOpcode.FUSE_MKDIR, FuseClient.Join(FuseClient.Bytes(new fuse_mkdir_in { mode = 0x1ff }), name)),
            7 => (random.Next(2) == 0 ? FuseOpcode.FUSE_UNLINK : FuseOpcode.FUSE_RMDIR, name),
            8 => (FuseOpcode.FUSE_RENAME2, FuseClient.Join(FuseClient.Bytes(new fuse_rename2_in { newdir = node, flags = (uint)random.Next(8) }), name, FuseClient.Text("d"))),
            9 => (FuseOpcode.FUSE_LINK, FuseClient.LinkArgs(node, "link")),
            10 => (FuseOpcode.FUSE_OPEN, FuseClient.Bytes(new fuse_open_in { flags = size })),
            11 => (FuseOpcode.FUSE_READ, FuseClient.ReadArgs(handle, offset, size)),
            12 => (FuseOpcode.FUSE_WRITE, FuseClient.WriteArgs(handle, offset & 0xf_ffff, new byte[random.Next(300)], (uint)random.Next(8))),
            13 => (FuseOpcode.FUSE_RELEASE, FuseClient.Bytes(new fuse_release_in { fh = Pick(random, [99]) })),
            14 => (FuseOpcode.FUSE_SETXATTR, FuseClient.SetXattrArgs("user.x", new byte[random.Next(100)])),
            15 => (FuseOpcode.FUSE_GETXATTR, FuseClient.GetXattrArgs("user.x", size)),
            16 => (FuseOpcode.FUSE_LISTXATTR, FuseClient.Bytes(new fuse_getxattr_in { size = size })),
            17 => (FuseOpcode.FUSE_OPENDIR, FuseClient.Bytes(default(fuse_open_in))),
            18 => (FuseOpcode.FUSE_READDIRPLUS, FuseClient.ReadArgs(handle, offset, size)),
            19 => (FuseOpcode.FUSE_READDIR, FuseClient.ReadArgs(handle, offset, size)),
            20 => (FuseOpcode.FUSE_CREATE, FuseClient.Join(FuseClient.Bytes(new fuse_create_in { flags = size, mode = 0x81ff }), name)),
            21 => (FuseOpcode.FUSE_BATCH_FORGET, FuseClient.Join(FuseClient.Bytes(new fuse_batch_forget_in { count = size }), new byte[random.Next(64)])),
            22 => (FuseOpcode.FUSE_FALLOCATE, FuseClient.Bytes(new fuse_fallocate_in { fh = handle, offset = offset & 0xffff, length = size & 0xffff, mode = (uint)random.Next(64) })),
            23 => (FuseOpcode.FUSE_LSEEK, FuseClient.Bytes(new fuse_lseek_in { fh = handle, offset = offset, whence = (uint)random.Next(8) })),
            24 => (FuseOpcode.FUSE_COPY_FILE_RANGE, FuseClient.Bytes(new fuse_copy_file_range_in { fh_in = handle, fh_out = handle, nodeid_out = node, len = size & 0xffff })),
            _ => (FuseOpcode.FUSE_INIT, FuseClient.Bytes(new fuse_init_in { major = (uint)random.Next(9), minor = (uint)random.Next(99), flags = FuseClient.AllFlags })),
        };
    }
}
