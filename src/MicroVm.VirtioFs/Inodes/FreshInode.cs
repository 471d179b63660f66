using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Exports;

namespace MicroVm.VirtioFs.Inodes;

/// <summary>An inode that was just opened, for <see cref="InodeArrivals.Insert"/>.</summary>
internal ref struct FreshInode
{
    /// <summary>Its O_PATH descriptor, for which a unit of the budget was taken.</summary>
    public int Fd;

    /// <summary>Which inode it is.</summary>
    public InodeKey Key;

    /// <summary>What statx(2) said of the descriptor.</summary>
    public Libc.statx_t Stat;

    /// <summary>It lies on an overlay.</summary>
    public bool IsOverlay;

    /// <summary>Number of the export whose root it is, or <see cref="InodeEntry.None"/>.</summary>
    public int Export;

    /// <summary>Index of the folder, pinned, whose name led to it, or <see cref="InodeEntry.None"/>.</summary>
    public int Parent;

    /// <summary>The name, ended by a NUL; empty without one.</summary>
    public unsafe byte* Name;

    /// <summary><see cref="Parent"/>, or what stands for it where an export's root has none.</summary>
    public readonly int Place => Export == InodeEntry.None ? Parent : InodeEntry.None - 1 - Export;

    /// <summary>The mount through which the descriptor was opened.</summary>
    public readonly ulong MountId => (Stat.stx_mask & Libc.STATX_MNT_ID) != 0 ? Stat.stx_mnt_id : 0;
}
