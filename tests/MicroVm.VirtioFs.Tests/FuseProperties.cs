using System.Text;
using FsCheck;
using FsCheck.Fluent;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Tests.Shared;
using MicroVm.VirtioFs.Protocol;
using Xunit;

namespace MicroVm.VirtioFs.Tests;

public sealed class FuseProperties
{
    private static readonly FuseOpcode[] Opcodes =
        [.. Enum.GetValues<FuseOpcode>().Where(o => o is not (FuseOpcode.FUSE_INIT or FuseOpcode.FUSE_DESTROY or FuseOpcode.FUSE_SETLKW or FuseOpcode.FUSE_EVENTS))];

    private static readonly byte[][] Names =
    [
        .. new[] { "f", "d", "l", "fifo", "..", ".", "", "../secret", "/etc/passwd", "d/f", "new", new string('n', 300) }.Select(FuseClient.Text),
    ];

    /// <summary>Whatever a guest sends, an answer comes, and nothing outside the shared tree changes.</summary>
    [Fact]
    public void Random_requests_are_answered_and_change_nothing_outside_the_tree()
    {
        using TempTree tree = new();
        string secret = Path.Combine(tree.Base, "secret");
        File.WriteAllText(secret, "secret");
        Directory.CreateDirectory(tree.At("d"));
        tree.Write("f", "content");
        File.CreateSymbolicLink(tree.At("l"), "../secret");
        Libc.statx_t before = TempTree.Stat(secret);
        using FuseClient fs = new(tree.Share);
        ulong fh = fs.Open(fs.Walk("f"), Libc.O_RDWR);
        ulong dh = fs.OpenDirectory(fs.Root);
        fs.Walk("d");
        fs.Walk("l");

        Gen<byte[]> word = Gen.OneOf(
            Gen.Elements<ulong>(0ul, 1, 2, 3, 4, 5, 6, fs.Root, fh, dh, uint.MaxValue, ulong.MaxValue, 1ul << 63, 4096).Select(BitConverter.GetBytes),
            Gen.Choose(0, int.MaxValue).Select(i => BitConverter.GetBytes((long)i)));
        Gen<byte[]> args =
            from words in word.ListOf(8)
            from used in Gen.Choose(0, 8)
            from first in Gen.Elements(Names)
            from second in Gen.Elements(Names)
            from names in Gen.Choose(0, 2)
            select FuseClient.Join([.. words.Take(used), .. new[] { first, second }.Take(names)]);
        Gen<(FuseOpcode Opcode, ulong Node, byte[] Args, int Room)> request =
            from opcode in Gen.OneOf(Gen.Elements(Opcodes), Gen.Choose(0, 80).Select(i => (FuseOpcode)i))
            from node in Gen.Elements<ulong>(0ul, 1, 2, 3, 4, 5, 6, 7, ulong.MaxValue)
            from body in args
            from room in Gen.Elements(1, 8, 104, 128, 144, 4096)
            where opcode is not (FuseOpcode.FUSE_INIT or FuseOpcode.FUSE_DESTROY or FuseOpcode.FUSE_SETLKW or FuseOpcode.FUSE_EVENTS)
            select (opcode, node, body, room);

        Prop.ForAll(request.ToArbitrary(), r =>
        {
            fuse_in_header header = new() { len = (uint)(40 + r.Args.Length), opcode = (uint)r.Opcode, nodeid = r.Node, unique = 9 };
            (uint written, byte[] reply) = fs.Guest.Send(FsGuest.Requests, [FuseClient.Bytes(header), r.Args], [16, r.Room]);
            return written == 0
                ? r.Opcode is FuseOpcode.FUSE_FORGET or FuseOpcode.FUSE_BATCH_FORGET or FuseOpcode.FUSE_INTERRUPT
                : written <= 16 + r.Room && BitConverter.ToUInt32(reply) == written && fs.Guest.Failures.IsEmpty;
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(4000));

        Assert.Equal("secret", File.ReadAllText(secret));
        Libc.statx_t after = TempTree.Stat(secret);
        Assert.Equal((before.stx_mode, before.stx_uid, before.stx_nlink, before.stx_ctime), (after.stx_mode, after.stx_uid, after.stx_nlink, after.stx_ctime));
        Assert.Equal(2, Directory.GetFileSystemEntries(tree.Base).Length);
    }

    [Fact]
    public void Random_bytes_are_answered()
    {
        using TempTree tree = new();
        using FuseClient fs = new(tree.Share);
        Gen<byte[]> bytes = Gen.Choose(0, 255).Select(i => (byte)i).ArrayOf();
        Prop.ForAll(bytes.ToArbitrary(), Gen.Choose(0, 200).ToArbitrary(), (request, room) =>
        {
            (uint written, _) = fs.Guest.Send(FsGuest.Requests, [request], [room]);
            return written <= room && fs.Guest.Failures.IsEmpty;
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(2000));
    }

    /// <summary>A random sequence of operations gives the same tree as the same operations on the host directly.</summary>
    [Fact]
    public void Sequences_of_operations_do_what_the_host_does()
    {
        Gen<string> name = Gen.Elements("a", "b", "c", "d", "e");
        Gen<string> dir = Gen.Elements("", "x", "y", "x/z");
        Gen<Step> step =
            from operation in Gen.Choose(0, 8)
            from source in dir
            from a in name
            from to in dir
            from b in name
            from number in Gen.Choose(0, 5000)
            select new Step(operation, source, a, to, b, number);
        Prop.ForAll(step.ListOf(40).ToArbitrary(), steps =>
        {
            using TempTree tree = new();
            string model = Path.Combine(tree.Base, "model");
            foreach (string root in new[] { tree.Share, model })
            {
                Directory.CreateDirectory(Path.Combine(root, "x/z"));
                Directory.CreateDirectory(Path.Combine(root, "y"));
            }

            using FuseClient fs = new(tree.Share);
            foreach (Step s in steps)
            {
                bool ours = s.ByFuse(fs);
                bool theirs = s.ByHost(model);
                Assert.True(ours == theirs, $"{s}: {ours} by FUSE ({fs.LastError}), {theirs} on the host");
            }

            Assert.Equal(Describe(model), Describe(tree.Share));
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(60));
    }

    private static string Describe(string root)
    {
        StringBuilder text = new();
        foreach (string path in Directory.EnumerateFileSystemEntries(root, "*", SearchOption.AllDirectories).Order(StringComparer.Ordinal))
        {
            Libc.statx_t stat = TempTree.Stat(path);
            string content = (stat.stx_mode & Libc.S_IFMT) == Libc.S_IFREG ? Convert.ToHexString(File.ReadAllBytes(path)) : new FileInfo(path).LinkTarget ?? "";
            bool isDirectory = (stat.stx_mode & Libc.S_IFMT) == Libc.S_IFDIR;
            text.Append($"{Path.GetRelativePath(root, path)} {stat.stx_mode:x} {stat.stx_nlink} {(isDirectory ? 0 : stat.stx_size)} {content}\n");
        }

        return text.ToString();
    }

    private sealed record Step(int Operation, string From, string A, string To, string B, int Number)
    {
        private byte[] Data => [.. Enumerable.Range(0, Number % 100).Select(i => (byte)(i + Number))];

        public bool ByFuse(FuseClient fs)
        {
            ulong from = fs.Walk(From);
            ulong to = fs.Walk(To);
            Errno Remove(FuseOpcode opcode) => fs.Error(opcode, from, FuseClient.Text(A), 0);
            switch (Operation)
            {
                case 0:
                    return fs.Error(FuseOpcode.FUSE_MKDIR, from, FuseClient.Join(FuseClient.Bytes(new fuse_mkdir_in { mode = 0x1FF, umask = 0x12 }), FuseClient.Text(A))) == Errno.OK;
                case 1:
                    return Remove(FuseOpcode.FUSE_UNLINK) == Errno.OK;
                case 2:
                    return Remove(FuseOpcode.FUSE_RMDIR) == Errno.OK;
                case 3:
                    return fs.Rename(from, A, to, B) == Errno.OK;
                case 4:
                    byte[] found = fs.Call(FuseOpcode.FUSE_LOOKUP, from, FuseClient.Text(A));
                    return fs.LastError == Errno.OK
                        && fs.Error(FuseOpcode.FUSE_LINK, to, FuseClient.LinkArgs(FuseClient.Parse<ulong>(found), B)) == Errno.OK;
                case 5:
                    return fs.Error(FuseOpcode.FUSE_SYMLINK, from, FuseClient.Join(FuseClient.Text(A), FuseClient.Text(B))) == Errno.OK;
                default:
                    byte[] created = fs.Call(FuseOpcode.FUSE_CREATE, from, fs.CreateArgs(A, Libc.O_RDWR | Flags, 0x1B6));
                    if (fs.LastError != Errno.OK)
                    {
                        return false;
                    }

                    ulong node = FuseClient.Parse<ulong>(created);
                    ulong fh = FuseClient.Parse<ulong>(created, 128);
                    bool written = fs.Error(FuseOpcode.FUSE_WRITE, node, FuseClient.WriteArgs(fh, (ulong)Number, Data)) == Errno.OK;
                    if (written && Operation == 8)
                    {
                        fs.SetAttr(node, new fuse_setattr_in { valid = Fuse.FATTR_SIZE, size = (ulong)Number / 2 });
                    }

                    fs.Release(node, fh);
                    return written;
            }
        }

        public unsafe bool ByHost(string root)
        {
            string a = Path.Combine(root, From, A);
            string b = Path.Combine(root, To, B);
            fixed (byte* pa = FuseClient.Text(a), pb = FuseClient.Text(b), pt = FuseClient.Text(B))
            {
                switch (Operation)
                {
                    case 0:
                        return Libc.mkdirat(Libc.AT_FDCWD, pa, 0x1ED) == 0;
                    case 1:
                        return Libc.unlinkat(Libc.AT_FDCWD, pa, 0) == 0;
                    case 2:
                        return Libc.unlinkat(Libc.AT_FDCWD, pa, Libc.AT_REMOVEDIR) == 0;
                    case 3:
                        return Libc.renameat2(Libc.AT_FDCWD, pa, Libc.AT_FDCWD, pb, 0) == 0;
                    case 4:
                        return Libc.linkat(Libc.AT_FDCWD, pa, Libc.AT_FDCWD, pb, 0) == 0;
                    case 5:
                        return Libc.symlinkat(pt, Libc.AT_FDCWD, pa) == 0;
                    default:
                        int fd = Libc.openat(Libc.AT_FDCWD, pa, Libc.O_RDWR | Libc.O_CREAT | Libc.O_NOFOLLOW | Flags, 0x1A4);
                        if (fd < 0)
                        {
                            return false;
                        }

                        byte[] data = Data;
                        bool written;
                        fixed (byte* p = data)
                        {
                            written = Libc.pwrite(fd, p, (nuint)data.Length, Number) == data.Length;
                        }

                        if (Operation == 8)
                        {
                            Libc.ftruncate(fd, Number / 2);
                        }

                        Libc.close(fd);
                        return written;
                }
            }
        }

        private int Flags => (Number % 3) switch { 0 => Libc.O_TRUNC, 1 => Libc.O_APPEND, _ => 0 };
    }
}
