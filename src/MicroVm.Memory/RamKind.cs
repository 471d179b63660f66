namespace MicroVm.Memory;

/// <summary>What backs guest RAM, which decides on how it is shown files and given back.</summary>
internal enum RamKind
{
    /// <summary>A memory file of this process, by the host's small pages.</summary>
    Anonymous,

    /// <summary>The same by huge pages of the host's pool.</summary>
    HugePages,

    /// <summary>A caller's file, changed as the guest changes its RAM.</summary>
    File,

    /// <summary>A caller's file, copied page by page as the guest writes: a template.</summary>
    CopyOfFile,
}
