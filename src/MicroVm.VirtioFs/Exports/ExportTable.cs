using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.HostFiles;
using MicroVm.VirtioFs.Inodes;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VmmControl;

namespace MicroVm.VirtioFs.Exports;

/// <summary>The exports of a device, by name and by number. Any thread; reading allocates nothing.</summary>
internal sealed class ExportTable : IDisposable
{
    private readonly Lock _lock = new();
    private readonly SafeFd _procSelfFd;
    private Export?[] _byIndex = new Export?[4];
    private ExportRules[] _rules = [];
    private ulong[] _devices = [];
    private int _count;

    /// <summary>Makes an empty table.</summary>
    /// <param name="procSelfFd">/proc/self/fd, borrowed.</param>
    public ExportTable(SafeFd procSelfFd) => _procSelfFd = procSelfFd;

    /// <summary>One past the highest number given out.</summary>
    public int HighWater => Volatile.Read(ref _count);

    /// <summary>The export with a number; null when it was removed.</summary>
    public Export? this[int index]
    {
        get
        {
            Export?[] all = Volatile.Read(ref _byIndex);
            return (uint)index < (uint)all.Length ? Volatile.Read(ref all[index]) : null;
        }
    }

    /// <summary>The rules with a number that an inode's key holds.</summary>
    public ExportRules RulesOf(in InodeKey key) => Volatile.Read(ref _rules)[key.Rules];

    /// <summary>The number of the folder for a host file system, by its name <c>major:minor</c>; -1 when no export has it.</summary>
    public int FindDevice(ReadOnlySpan<byte> name)
    {
        Span<char> text = stackalloc char[FsExportName.LongestDevice];
        ulong[] devices = Volatile.Read(ref _devices);
        for (int i = 0; i < devices.Length; i++)
        {
            if (name.Length <= text.Length && FsExportName.TryFormatDevice(devices[i], text, out int length)
                && Ascii.Equals(name, text[..length]))
            {
                return i;
            }
        }

        return -1;
    }

    /// <summary>How many host file systems have a folder.</summary>
    public int DeviceCount => Volatile.Read(ref _devices).Length;

    /// <summary>The st_dev of a folder, as <see cref="InodeKey.DeviceOf"/> has it.</summary>
    public ulong DeviceOf(int folder) => Volatile.Read(ref _devices)[folder];

    /// <summary>Adds an export; takes its descriptor over, also when it cannot be added.</summary>
    /// <param name="source">What to add.</param>
    /// <param name="error">Why not: a sentence for the user.</param>
    public bool TryAdd(VirtioFsExport source, out string? error)
    {
        byte[] name = Encoding.UTF8.GetBytes(source.Name);
        SafeFd? path = null;
        uint type = 0;
        ulong device = 0;
        using SafeFd given = source.Fd;
        error = CheckName(source.Name, name) ?? TryOpenPath(given, source, out path, out type, out device);
        if (error is not null)
        {
            path?.Dispose();
            return false;
        }

        lock (_lock)
        {
            if (path is null || Find(name) is not null)
            {
                path?.Dispose();
                error = $"there is an export '{source.Name}' already: choose another name or remove that one first";
                return false;
            }

            int folder = InternDevice(device);
            if (folder < 0)
            {
                path.Dispose();
                error = $"export '{source.Name}' is on another file system than all before, of which there were {InodeKey.MaxHomes} already: restart the VM";
                return false;
            }

            if (_count == _byIndex.Length)
            {
                Export?[] larger = new Export?[_count * 2];
                _byIndex.CopyTo(larger, 0);
                Volatile.Write(ref _byIndex, larger);
            }

            _byIndex[_count] = new Export(_count, source.Name, name, path, type, InternRules(source), folder, source.SharesSockets);
            Volatile.Write(ref _count, _count + 1);
            return true;
        }
    }

    /// <summary>Takes an export out of the table; the caller disposes of its descriptor.</summary>
    public Export? Remove(string name)
    {
        lock (_lock)
        {
            Export? export = Find(Encoding.UTF8.GetBytes(name));
            if (export is not null)
            {
                Volatile.Write(ref _byIndex[export.Index], null);
            }

            return export;
        }
    }

    /// <summary>Finds an export by its name's bytes.</summary>
    public Export? Find(ReadOnlySpan<byte> name)
    {
        lock (_lock)
        {
            for (int i = 0; i < _count; i++)
            {
                if (_byIndex[i] is { } export && name.SequenceEqual(export.NameBytes))
                {
                    return export;
                }
            }
        }

        return null;
    }

    /// <summary>Duplicates an export's descriptor; -1 with errno EMFILE, or -1 with ENOENT when it was removed meanwhile.</summary>
    public int Duplicate(Export export, out Errno errno)
    {
        lock (_lock)
        {
            if (_byIndex[export.Index] != export)
            {
                errno = Errno.ENOENT;
                return -1;
            }

            int fd = Libc.fcntl(export.Fd.Value, Libc.F_DUPFD_CLOEXEC, 0);
            errno = fd < 0 ? Check.LastErrno : Errno.OK;
            return fd;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_lock)
        {
            foreach (Export? export in _byIndex)
            {
                export?.Fd.Dispose();
            }

            _byIndex.AsSpan().Clear();
        }
    }

    /// <summary>The rules that exports like this one share.</summary>
    private ExportRules InternRules(VirtioFsExport source)
    {
        foreach (ExportRules known in _rules)
        {
            if (known == new ExportRules(known.Index, source.ReadOnly, source.Cache, source.HidesMounts))
            {
                return known;
            }
        }

        ExportRules rules = new(_rules.Length, source.ReadOnly, source.Cache, source.HidesMounts);
        Volatile.Write(ref _rules, [.. _rules, rules]);
        return rules;
    }

    // A folder is never removed: the guest may know it.
    private int InternDevice(ulong device)
    {
        int known = Array.IndexOf(_devices, device);
        if (known < 0 && _devices.Length < InodeKey.MaxHomes)
        {
            known = _devices.Length;
            Volatile.Write(ref _devices, [.. _devices, device]);
        }

        return known;
    }

    private static string? CheckName(string name, byte[] bytes) =>
        bytes.Length is 0 or > FuseNames.MaxLength || name is "." or ".." || bytes.AsSpan().ContainsAny((byte)'/', (byte)0)
            ? $"export name '{name}' is not one path component of 1 to {FuseNames.MaxLength} bytes: rename it"
            : null;

    private static uint TypeOf(SafeFd fd, out ulong device)
    {
        bool known = HostInode.Stat(fd.Value, Libc.STATX_TYPE, out Libc.statx_t stat) == 0;
        device = known ? InodeKey.DeviceOf(stat) : 0;
        return known ? stat.stx_mode & Libc.S_IFMT : 0;
    }

    /// <summary>
    /// A descriptor that was opened for I/O would keep a mount writable or a lock held, so that an export keeps an O_PATH
    /// one of the same file.
    /// </summary>
    // Safe: the link has room for any descriptor's number; the kernel reads it only.
    private unsafe string? TryOpenPath(SafeFd given, VirtioFsExport source, out SafeFd? path, out uint type, out ulong device)
    {
        type = TypeOf(given, out device);
        path = null;
        if (type is not (Libc.S_IFDIR or Libc.S_IFREG) && !(type == Libc.S_IFIFO && source.SharesSockets))
        {
            return $"export '{source.Name}' is neither a directory nor a regular file: only those can be shared, and FIFOs where sockets are";
        }

        byte* link = stackalloc byte[ProcFd.NameLength];
        ProcFd.Format(given.Value, link);
        int fd = Libc.openat(_procSelfFd.Value, link, Libc.O_PATH | Libc.O_CLOEXEC, 0);
        if (fd < 0)
        {
            return $"export '{source.Name}' cannot be opened again through /proc/self/fd: {LinuxException.Text(Check.LastErrno)}";
        }

        path = new SafeFd(fd);
        return null;
    }
}
