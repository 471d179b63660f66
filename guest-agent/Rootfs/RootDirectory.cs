using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Agent.Rootfs;

/// <summary>
/// A directory tree whose paths are resolved with the directory as root: symbolic links, absolute ones too, and ".." never
/// lead out of it (openat2(2), RESOLVE_IN_ROOT). Owns the directory's descriptor.
/// </summary>
public sealed unsafe class RootDirectory : IDisposable
{
    private const int MaxDepth = 256;
    private const int MaxLinks = 40;

    /// <summary>Takes the directory over.</summary>
    public RootDirectory(SafeFd directory) => Fd = directory;

    /// <summary>The directory, O_PATH.</summary>
    public SafeFd Fd { get; }

    /// <summary>Opens the directory at <paramref name="path"/> of the agent's own root.</summary>
    /// <exception cref="LinuxException">It does not exist or is no directory.</exception>
    public static RootDirectory At(string path) =>
        new(SafeFd.From(Libc.open(path, Libc.O_PATH | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0), "open", path));

    /// <summary>Opens what is at <paramref name="path"/>; null when nothing is.</summary>
    /// <exception cref="LinuxException">Anything but ENOENT, ENOTDIR.</exception>
    public SafeFd? TryOpen(string path, int flags = Libc.O_PATH)
    {
        int fd = OpenAt(path, flags);
        if (fd >= 0)
        {
            return new SafeFd(fd);
        }

        if (Check.LastErrno is Errno.ENOENT or Errno.ENOTDIR)
        {
            return null;
        }

        Check.Throw("openat2", path);
        return null;
    }

    /// <summary>Opens what is at <paramref name="path"/>.</summary>
    /// <exception cref="LinuxException">It does not exist or cannot be opened.</exception>
    public SafeFd Open(string path, int flags = Libc.O_PATH) => SafeFd.From(OpenAt(path, flags), "open", path);

    /// <summary>Opens the directory at <paramref name="path"/>, and makes it and its parents (mode 0755) when they are missing.</summary>
    /// <exception cref="LinuxException">A part of the path is no directory, or cannot be made.</exception>
    public SafeFd MakeDirectory(string path) => MakeDirectory(path, MaxLinks);

    private SafeFd MakeDirectory(string path, int links)
    {
        ArgumentNullException.ThrowIfNull(path);
        SafeFd? existing = TryOpen(path, Libc.O_PATH | Libc.O_DIRECTORY);
        if (existing is not null)
        {
            return existing;
        }

        string[] parts = path.Split('/', StringSplitOptions.RemoveEmptyEntries);
        if (parts.Length > MaxDepth)
        {
            throw new LinuxException(Errno.ENAMETOOLONG, "mkdir", path);
        }

        // Each prefix is resolved anew in the root, so a link on the way is followed inside of it; the last part is made in
        // the directory that was resolved.
        StringBuilder prefix = new();
        SafeFd parent = Fd.Duplicate();
        foreach (string part in parts)
        {
            string above = prefix.ToString();
            prefix.Append('/').Append(part);
            SafeFd? next = TryOpen(prefix.ToString(), Libc.O_PATH | Libc.O_DIRECTORY);
            if (next is null)
            {
                MakeOne(parent, part, path);
                next = TryOpen(prefix.ToString(), Libc.O_PATH | Libc.O_DIRECTORY) ?? FollowDangling(parent, part, above, path, links);
            }

            parent.Dispose();
            parent = next;
        }

        return parent;
    }

    /// <summary>
    /// Opens the file at <paramref name="path"/>, and makes it, empty, and its parents when they are missing. A link whose
    /// target is missing has it made, in the root.
    /// </summary>
    /// <exception cref="LinuxException">A part of the path is no directory, or the file cannot be made.</exception>
    public SafeFd MakeFile(string path) => MakeFile(path, MaxLinks);

    private SafeFd MakeFile(string path, int links)
    {
        ArgumentNullException.ThrowIfNull(path);
        SafeFd? existing = TryOpen(path);
        if (existing is not null)
        {
            return existing;
        }

        int slash = path.TrimEnd('/').LastIndexOf('/');
        string above = slash > 0 ? path[..slash] : "";
        using (SafeFd parent = slash > 0 ? MakeDirectory(above) : Fd.Duplicate())
        {
            string name = path.TrimEnd('/')[(slash + 1)..];
            int made = Libc.openat(parent.Value, name, Libc.O_WRONLY | Libc.O_CREAT | Libc.O_NOFOLLOW | Libc.O_CLOEXEC, 0x1ed);
            if (made < 0 && Check.LastErrno == Errno.ELOOP)
            {
                return MakeFile(TargetOf(parent, name, above, path, links), links - 1);
            }

            SafeFd.From(made, "create", path).Dispose();
        }

        return Open(path);
    }

    /// <inheritdoc/>
    public void Dispose() => Fd.Dispose();

    private static void MakeOne(SafeFd parent, string name, string path)
    {
        Span<byte> bytes = Encoding.UTF8.GetBytes(name + '\0');
        fixed (byte* p = bytes)
        {
            // A name that is "." or ".." exists; so does a dangling link, which stays an error of the open that follows.
            if (Libc.mkdirat(parent.Value, p, 0x1ed) < 0 && Check.LastErrno != Errno.EEXIST)
            {
                Check.Throw("mkdir", path);
            }
        }
    }

    // A link whose target is missing: the target is made, in the root, as for an image's /var/run -> /run without a /run.
    private SafeFd FollowDangling(SafeFd parent, string name, string above, string path, int links) =>
        MakeDirectory(TargetOf(parent, name, above, path, links), links - 1);

    private static string TargetOf(SafeFd parent, string name, string above, string path, int links)
    {
        const int size = 4096;
        byte* target = stackalloc byte[size];
        fixed (byte* p = Encoding.UTF8.GetBytes(name + '\0'))
        {
            nint n = Libc.readlinkat(parent.Value, p, target, size);
            if (n <= 0 || links == 0)
            {
                throw links == 0 ? new LinuxException(Errno.ELOOP, "follow link", path) : new LinuxException(Errno.ENOTDIR, "mkdir", path);
            }

            string to = Encoding.UTF8.GetString(target, (int)n);
            return to[0] == '/' ? to : $"{above}/{to}";
        }
    }

    private int OpenAt(string path, int flags)
    {
        Libc.open_how how = new() { flags = (ulong)(flags | Libc.O_CLOEXEC), resolve = Libc.RESOLVE_IN_ROOT };
        Span<byte> bytes = stackalloc byte[512];
        int length = Encoding.UTF8.GetByteCount(path);
        if (length >= bytes.Length)
        {
            bytes = new byte[length + 1];
        }

        bytes[Encoding.UTF8.GetBytes(path, bytes)] = 0;
        if (length == 0)
        {
            (bytes[0], bytes[1]) = ((byte)'.', 0);
        }

        fixed (byte* p = bytes)
        {
            return Resolved.Open(Fd.Value, p, how);
        }
    }
}
