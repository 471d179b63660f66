namespace MicroVm.Vmm.Fs;

/// <summary>An inode lent to a request: its descriptor stays open until this is disposed of, once.</summary>
internal readonly ref struct InodePin
{
    private readonly InodeTable? _table;
    private readonly int _index;

    /// <summary>Made by <see cref="InodeTable.TryPin"/>.</summary>
    public InodePin(InodeTable table, ulong nodeId, int index, int fd, uint type, in InodeKey key, bool isExportRoot)
    {
        _table = table;
        _index = index;
        NodeId = nodeId;
        Fd = fd;
        FileType = type;
        Key = key;
        IsExportRoot = isExportRoot;
    }

    /// <summary>The guest's id of it.</summary>
    public ulong NodeId { get; }

    /// <summary>The O_PATH descriptor, borrowed.</summary>
    public int Fd { get; }

    /// <summary>S_IFREG, S_IFDIR...; a host inode's type never changes.</summary>
    public uint FileType { get; }

    /// <summary>What it is on the host.</summary>
    public InodeKey Key { get; }

    /// <summary>It is an entry of the synthesised root directory.</summary>
    public bool IsExportRoot { get; }

    /// <summary>Gives the inode back.</summary>
    public void Dispose() => _table?.Unpin(_index);
}
