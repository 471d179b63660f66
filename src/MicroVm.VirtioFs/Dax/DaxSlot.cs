namespace MicroVm.VirtioFs.Dax;

/// <summary>One range of a <see cref="DaxWindow"/>.</summary>
internal struct DaxSlot
{
    /// <summary>The file that is mapped, a descriptor of the slot's own; -1: none is.</summary>
    public int Fd;

    /// <summary>The guest's id of the file.</summary>
    public ulong NodeId;

    /// <summary>Where in the file the slot starts.</summary>
    public ulong FileOffset;

    /// <summary>The guest may write.</summary>
    public bool IsWritable;

    /// <summary>Bytes of the slot that the file had when that was last looked at, in whole pages.</summary>
    public ulong KnownLength;

    /// <summary>From here on the slot has zero pages in the place of pages that the file has lost; the slot's length: none.</summary>
    public ulong ZeroFrom;
}
