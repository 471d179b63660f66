namespace MicroVm.VirtioFs.Inodes;

/// <summary>An inode lent to a request: its descriptor stays open until this is disposed of, once.</summary>
internal readonly ref struct InodePin
{
    private readonly InodeStore? _store;

    /// <summary>Made by <see cref="InodeTable.TryPin(ulong, out InodePin)"/>.</summary>
    public InodePin(InodeStore store, ulong nodeId, int index, in InodeEntry entry)
    {
        _store = store;
        Index = index;
        NodeId = nodeId;
        Fd = entry.Fd;
        FileType = entry.Type;
        Key = entry.Key;
        MountId = entry.MountId;
        IsExportRoot = entry.Export != InodeEntry.None;
        IsOverlay = entry.IsOverlay;
    }

    /// <summary>Its place in the table.</summary>
    public int Index { get; }

    /// <summary>The guest's id of it.</summary>
    public ulong NodeId { get; }

    /// <summary>The O_PATH descriptor, borrowed.</summary>
    public int Fd { get; }

    /// <summary>S_IFREG, S_IFDIR...; a host inode's type never changes.</summary>
    public uint FileType { get; }

    /// <summary>What it is on the host.</summary>
    public InodeKey Key { get; }

    /// <summary>The mount through which <see cref="Fd"/> was opened.</summary>
    public ulong MountId { get; }

    /// <summary>It is an entry of the synthesised root directory.</summary>
    public bool IsExportRoot { get; }

    /// <summary>It lies on an overlay.</summary>
    public bool IsOverlay { get; }

    /// <summary>Gives the inode back.</summary>
    public void Dispose() => _store?.Unpin(Index);
}
