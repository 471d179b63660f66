using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Tests.Shared;
using MicroVm.Tests.Shared.Fuzz;
using MicroVm.VirtioFs.Descriptors;
using MicroVm.VirtioFs.Protocol;
using Xunit;

namespace MicroVm.VirtioFs.Tests;

/// <summary>
/// Two VMs, one of which sees a tree by two exports, and the host work on it at random. A plain directory, to which each operation
/// is done as well, says what every answer must be.
/// </summary>
public sealed class ModelFuzz
{
    private const int Operations = 150;
    private const int FewDescriptors = 24; // so that inodes lose theirs again and again
    private static readonly string[] Folders = ["", "d", "d/e", "g"];
    private static readonly string[] Names = ["a", "b", "c", "e", "g"];

    [Fact]
    public void Every_view_of_a_tree_is_the_tree() => Fuzzing.Run("fs-model", random =>
    {
        using Run run = new(random);
        for (int i = 0; i < Operations; i++)
        {
            run.Step();
        }

        run.Compare();
    });

    /// <summary>What one actor can do to the tree.</summary>
    private interface IActor
    {
        Errno Create(string path, byte[] content);

        Errno Append(string path, byte[] content);

        (Errno Error, string Content) Read(string path);

        Errno MakeDirectory(string path);

        Errno Remove(string path, bool directory);

        Errno Rename(string from, string to);

        Errno Link(string from, string to);

        Errno Symlink(string path, string target);

        Errno Truncate(string path, long size);

        (Errno Error, uint Mode, uint Links, ulong Size) Stat(string path);
    }

    private sealed class Run : IDisposable
    {
        private readonly Random _random;
        private readonly TempTree _tree = new();
        private readonly Host _model;
        private readonly Host _host;
        private readonly FuseClient _first;
        private readonly FuseClient _second;
        private readonly IActor[] _actors;

        public Run(Random random)
        {
            _random = random;
            _model = new Host(Path.Combine(_tree.Base, "model"));
            _host = new Host(_tree.Share);
            foreach (string root in (string[])[_tree.Share, Path.Combine(_tree.Base, "model")])
            {
                // What is exported stays: "d" is never empty.
                Directory.CreateDirectory(Path.Combine(root, "d/kept"));
            }

            _first = new FuseClient(new FdBudget(FewDescriptors), FuseClient.Export("all", _tree.Share), FuseClient.Export("part", _tree.At("d")));
            _second = new FuseClient(new FdBudget(FewDescriptors), FuseClient.Export("all", _tree.Share));
            _actors = [_host, new Guest(_first, "all", ""), new Guest(_first, "part", "d/"), new Guest(_second, "all", "")];
        }

        public void Step()
        {
            IActor actor = _actors[_random.Next(_actors.Length)];
            string prefix = actor is Guest guest ? guest.Prefix : "";
            string path = prefix + Pick(prefix);
            string other = prefix + Pick(prefix);
            byte[] content = Encoding.ASCII.GetBytes($"{_random.Next(1000)};");
            switch (_random.Next(11))
            {
                case 0 or 1:
                    Same(path, actor.Create(path, content), _model.Create(path, content));
                    break;
                case 2:
                    Same(path, actor.Append(path, content), _model.Append(path, content));
                    break;
                case 3:
                    Same(path, actor.MakeDirectory(path), _model.MakeDirectory(path));
                    break;
                case 4:
                    bool directory = _random.Next(2) == 0;
                    Same(path, actor.Remove(path, directory), _model.Remove(path, directory));
                    break;
                case 5 when path != "d" && other != "d":
                    Same($"{path} {other}", actor.Rename(path, other), _model.Rename(path, other));
                    break;
                case 6:
                    Same($"{path} {other}", actor.Link(path, other), _model.Link(path, other));
                    break;
                case 7:
                    Same(path, actor.Symlink(path, "target"), _model.Symlink(path, "target"));
                    break;
                case 8:
                    long size = _random.Next(20);
                    Same(path, actor.Truncate(path, size), _model.Truncate(path, size));
                    break;
                case 9:
                    Same(path, actor.Read(path), _model.Read(path));
                    break;
                default:
                    Same(path, actor.Stat(path), _model.Stat(path));
                    break;
            }
        }

        /// <summary>Everything, seen by everyone.</summary>
        public void Compare()
        {
            string[] all = [.. Entries("share").Order(StringComparer.Ordinal)];
            Assert.Equal(Entries("model").Order(StringComparer.Ordinal), all);
            foreach (string path in all)
            {
                foreach (IActor actor in _actors.Where(a => a is not Guest g || path.StartsWith(g.Prefix, StringComparison.Ordinal)))
                {
                    Same(path, actor.Stat(path), _model.Stat(path));
                    Same(path, actor.Read(path), _model.Read(path));
                }
            }
        }

        public void Dispose()
        {
            _first.Dispose();
            _second.Dispose();
            _tree.Dispose();
        }

        private static void Same<T>(string path, T got, T expected) => Assert.True(Equals(got, expected), $"{path}: {got} where the model has {expected}");

        private IEnumerable<string> Entries(string root) => Directory
            .EnumerateFileSystemEntries(Path.Combine(_tree.Base, root), "*", new EnumerationOptions { RecurseSubdirectories = true, AttributesToSkip = 0 })
            .Select(p => Path.GetRelativePath(Path.Combine(_tree.Base, root), p));

        private string Pick(string prefix)
        {
            string folder = prefix.Length > 0 ? (_random.Next(2) == 0 ? "" : "e") : Folders[_random.Next(Folders.Length)];
            return folder.Length == 0 ? Names[_random.Next(Names.Length)] : $"{folder}/{Names[_random.Next(Names.Length)]}";
        }
    }

    /// <summary>System calls below a directory of the host.</summary>
    private sealed unsafe class Host(string root) : IActor
    {
        public Errno Create(string path, byte[] content) => Write(path, Libc.O_WRONLY | Libc.O_CREAT | Libc.O_EXCL, content);

        public Errno Append(string path, byte[] content) => Write(path, Libc.O_WRONLY | Libc.O_APPEND, content);

        public (Errno Error, string Content) Read(string path)
        {
            int fd = Open(path, Libc.O_RDONLY);
            if (fd < 0)
            {
                return (Check.LastErrno, "");
            }

            using SafeFd file = new(fd);
            byte[] content = new byte[8192];
            fixed (byte* p = content)
            {
                nint n = Libc.pread(fd, p, (nuint)content.Length, 0);
                return n < 0 ? (Check.LastErrno, "") : (Errno.OK, Encoding.ASCII.GetString(content, 0, (int)n));
            }
        }

        public Errno MakeDirectory(string path) => At(path, p => Libc.mkdirat(Libc.AT_FDCWD, (byte*)p, 0x1ED));

        public Errno Remove(string path, bool directory) =>
            At(path, p => Libc.unlinkat(Libc.AT_FDCWD, (byte*)p, directory ? Libc.AT_REMOVEDIR : 0));

        public Errno Rename(string from, string to) =>
            At(from, f => Result(At(to, t => Libc.renameat2(Libc.AT_FDCWD, (byte*)f, Libc.AT_FDCWD, (byte*)t, 0))));

        public Errno Link(string from, string to) =>
            At(from, f => Result(At(to, t => Libc.linkat(Libc.AT_FDCWD, (byte*)f, Libc.AT_FDCWD, (byte*)t, 0))));

        public Errno Symlink(string path, string target)
        {
            fixed (byte* t = FuseClient.Text(target))
            {
                nint text = (nint)t;
                return At(path, p => Libc.symlinkat((byte*)text, Libc.AT_FDCWD, (byte*)p));
            }
        }

        public Errno Truncate(string path, long size)
        {
            int fd = Open(path, Libc.O_WRONLY);
            if (fd < 0)
            {
                return Check.LastErrno;
            }

            using SafeFd file = new(fd);
            return Libc.ftruncate(fd, size) == 0 ? Errno.OK : Check.LastErrno;
        }

        public (Errno Error, uint Mode, uint Links, ulong Size) Stat(string path)
        {
            Libc.statx_t stat = default;
            Errno error = At(path, p =>
            {
                Libc.statx_t s;
                int result = Libc.statx(Libc.AT_FDCWD, (byte*)p, Libc.AT_SYMLINK_NOFOLLOW, Libc.STATX_BASIC_STATS, &s);
                stat = s;
                return result;
            });
            bool directory = (stat.stx_mode & Libc.S_IFMT) == Libc.S_IFDIR;
            return error != Errno.OK ? (error, 0, 0, 0) : (error, stat.stx_mode, stat.stx_nlink, directory ? 0 : stat.stx_size);
        }

        private static int Result(Errno error) => error == Errno.OK ? 0 : -1;

        private Errno At(string path, Func<nint, int> call)
        {
            fixed (byte* p = FuseClient.Text(Path.Combine(root, path)))
            {
                return call((nint)p) == 0 ? Errno.OK : Check.LastErrno;
            }
        }

        private int Open(string path, int flags) =>
            Libc.open(Path.Combine(root, path), flags | Libc.O_NOFOLLOW | Libc.O_NONBLOCK | Libc.O_CLOEXEC, 0x1A4);

        private Errno Write(string path, int flags, byte[] content)
        {
            int fd = Open(path, flags);
            if (fd < 0)
            {
                return Check.LastErrno;
            }

            using SafeFd file = new(fd);
            fixed (byte* p = content)
            {
                return Libc.pwrite(fd, p, (nuint)content.Length, 0) == content.Length ? Errno.OK : Check.LastErrno;
            }
        }
    }

    /// <summary>A guest's kernel that remembers nodes, and looks a path up once more when one is stale.</summary>
    private sealed class Guest(FuseClient fs, string export, string prefix) : IActor
    {
        private readonly ulong _root = fs.Lookup(1, export).nodeid;
        private readonly Dictionary<string, ulong> _known = [];

        public string Prefix => prefix;

        public Errno Create(string path, byte[] content) => InFolder(path, (folder, name) =>
        {
            byte[] reply = fs.Call(FuseOpcode.FUSE_CREATE, folder, fs.CreateArgs(name, Libc.O_WRONLY | Libc.O_EXCL, 0x1A4));
            return fs.LastError != Errno.OK ? fs.LastError
                : WriteAndRelease(FuseClient.Parse<fuse_entry_out>(reply).nodeid, FuseClient.Parse<fuse_open_out>(reply, 128).fh, content);
        });

        public Errno Append(string path, byte[] content) => OnFile(path, Libc.O_WRONLY | Libc.O_APPEND, (node, handle) => WriteAndRelease(node, handle, content));

        public (Errno Error, string Content) Read(string path)
        {
            string content = "";
            Errno error = OnFile(path, Libc.O_RDONLY, (node, handle) =>
            {
                content = Encoding.ASCII.GetString(fs.Read(node, handle, 0, 8192));
                fs.Release(node, handle);
                return Errno.OK;
            });
            return error == Errno.OK && IsFolder(path) ? (Errno.EISDIR, "") : (error, content);
        }

        public Errno MakeDirectory(string path) => InFolder(path, (folder, name) =>
            fs.Error(FuseOpcode.FUSE_MKDIR, folder, FuseClient.Join(FuseClient.Bytes(new fuse_mkdir_in { mode = 0x1ED }), FuseClient.Text(name))));

        public Errno Remove(string path, bool directory) => InFolder(path, (folder, name) =>
            fs.Error(directory ? FuseOpcode.FUSE_RMDIR : FuseOpcode.FUSE_UNLINK, folder, FuseClient.Text(name)));

        public Errno Rename(string from, string to) => InFolder(from, (folder, name) => InFolder(to, (target, newName) =>
            fs.Rename(folder, name, target, newName)));

        // The kernel looks the source up first, and refuses directories itself.
        public Errno Link(string from, string to) => OnNode(from, node => InFolder(to, (target, name) =>
        {
            Errno there = fs.LookupError(target, name);
            return there == Errno.OK ? Errno.EEXIST
                : (fs.GetAttr(node).mode & Libc.S_IFMT) == Libc.S_IFDIR ? Errno.EPERM
                : fs.Error(FuseOpcode.FUSE_LINK, target, FuseClient.LinkArgs(node, name));
        }));

        public Errno Symlink(string path, string target) => InFolder(path, (folder, name) =>
            fs.Error(FuseOpcode.FUSE_SYMLINK, folder, FuseClient.Join(FuseClient.Text(name), FuseClient.Text(target))));

        public Errno Truncate(string path, long size) => OnFile(path, Libc.O_WRONLY, (node, handle) =>
        {
            fuse_setattr_in change = new() { valid = Fuse.FATTR_SIZE | Fuse.FATTR_FH, fh = handle, size = (ulong)size };
            fs.SetAttr(node, change);
            fs.Release(node, handle);
            return Errno.OK;
        });

        public (Errno Error, uint Mode, uint Links, ulong Size) Stat(string path)
        {
            fuse_attr attr = default;
            Errno error = OnNode(path, node =>
            {
                byte[] reply = fs.Call(FuseOpcode.FUSE_GETATTR, node, FuseClient.Bytes(default(fuse_getattr_in)));
                attr = fs.LastError == Errno.OK ? FuseClient.Parse<fuse_attr_out>(reply).attr : default;
                return fs.LastError;
            });
            return error != Errno.OK ? (error, 0, 0, 0)
                : (error, attr.mode, attr.nlink, (attr.mode & Libc.S_IFMT) == Libc.S_IFDIR ? 0 : attr.size);
        }

        private Errno WriteAndRelease(ulong node, ulong handle, byte[] content)
        {
            Assert.Equal((uint)content.Length, fs.Write(node, handle, 0, content));
            fs.Release(node, handle);
            return Errno.OK;
        }

        private bool IsFolder(string path) => (Stat(path).Mode & Libc.S_IFMT) == Libc.S_IFDIR;

        private Errno OnFile(string path, int flags, Func<ulong, ulong, Errno> action) => OnNode(path, node =>
        {
            uint type = fs.GetAttr(node).mode & Libc.S_IFMT;
            if (type == Libc.S_IFDIR && flags == Libc.O_RDONLY)
            {
                return Errno.OK; // open(2) works, and read(2) says EISDIR
            }

            byte[] reply = fs.Call(FuseOpcode.FUSE_OPEN, node, FuseClient.Bytes(new fuse_open_in { flags = (uint)flags }));
            return fs.LastError != Errno.OK ? fs.LastError : action(node, FuseClient.Parse<fuse_open_out>(reply).fh);
        });

        private Errno OnNode(string path, Func<ulong, Errno> action) => InFolder(path, (folder, name) =>
        {
            byte[] reply = fs.Call(FuseOpcode.FUSE_LOOKUP, folder, FuseClient.Text(name));
            return fs.LastError != Errno.OK ? fs.LastError : action(FuseClient.Parse<fuse_entry_out>(reply).nodeid);
        });

        private Errno InFolder(string path, Func<ulong, string, Errno> action)
        {
            string relative = path[prefix.Length..];
            int slash = relative.LastIndexOf('/');
            string folder = slash < 0 ? "" : relative[..slash];
            string name = relative[(slash + 1)..];

            // Cached dentries first; all are looked up again after ESTALE, or when they may have become something else.
            Errno error = Walk(folder, remember: false, out ulong node);
            error = error == Errno.OK ? action(node, name) : error;
            if (error == Errno.ESTALE)
            {
                error = Walk(folder, remember: true, out node);
                error = error == Errno.OK ? action(node, name) : error;
            }

            return error;
        }

        private Errno Walk(string folder, bool remember, out ulong node)
        {
            node = _root;
            string path = "";
            foreach (string part in folder.Split('/', StringSplitOptions.RemoveEmptyEntries))
            {
                path += "/" + part;
                byte[] reply = fs.Call(FuseOpcode.FUSE_LOOKUP, node, FuseClient.Text(part));
                if (fs.LastError != Errno.OK)
                {
                    return fs.LastError;
                }

                fuse_entry_out entry = FuseClient.Parse<fuse_entry_out>(reply);
                if ((entry.attr.mode & Libc.S_IFMT) != Libc.S_IFDIR)
                {
                    return (entry.attr.mode & Libc.S_IFMT) == Libc.S_IFLNK ? Errno.ENOENT : Errno.ENOTDIR;
                }

                // One inode has one id as long as the guest refers to it.
                if (!remember && _known.TryGetValue(path, out ulong known) && known == entry.nodeid)
                {
                    fs.Forget(node: entry.nodeid, count: 1);
                }

                _known[path] = node = entry.nodeid;
            }

            return Errno.OK;
        }
    }
}
