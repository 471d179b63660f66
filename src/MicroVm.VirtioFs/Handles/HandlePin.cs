using MicroVm.Linux.Native;

namespace MicroVm.VirtioFs.Handles;

/// <summary>A handle lent to a request: its descriptor stays open until this is disposed of, once.</summary>
internal readonly ref struct HandlePin
{
    private readonly HandleTable? _table;
    private readonly int _index;

    /// <summary>Made by <see cref="HandleTable.TryPin"/>.</summary>
    public HandlePin(HandleTable table, int index, int fd, int flags)
    {
        _table = table;
        _index = index;
        Fd = fd;
        Flags = flags;
    }

    /// <summary>The descriptor, borrowed; -1 for the synthesised root directory.</summary>
    public int Fd { get; }

    /// <summary>The O_* flags that it was opened with on the host.</summary>
    public int Flags { get; }

    /// <summary>It can be read from.</summary>
    public bool IsReadable => (Flags & Libc.O_ACCMODE) != Libc.O_WRONLY;

    /// <summary>It can be written to.</summary>
    public bool IsWritable => (Flags & Libc.O_ACCMODE) != Libc.O_RDONLY;

    /// <summary>Gives the handle back.</summary>
    public void Dispose() => _table?.Unpin(_index);
}
