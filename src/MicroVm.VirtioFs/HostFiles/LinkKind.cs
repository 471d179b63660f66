namespace MicroVm.VirtioFs.HostFiles;

/// <summary>What is known of the names of one inode number on an overlay.</summary>
internal enum LinkKind : byte
{
    /// <summary>No second name was met.</summary>
    Unknown,

    /// <summary>All of them are one inode: an upper one, or a lower one of an overlay with an index.</summary>
    Same,

    /// <summary>Each is an inode of its own: a lower one of an overlay without an index.</summary>
    Separate,
}
