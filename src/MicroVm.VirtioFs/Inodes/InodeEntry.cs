using MicroVm.Linux.Native;
using MicroVm.VirtioFs.HostFiles;

namespace MicroVm.VirtioFs.Inodes;

/// <summary>An inode that the guest refers to, or a folder above one.</summary>
internal struct InodeEntry
{
    /// <summary>No entry, no slot, no export, no descriptor.</summary>
    public const int None = -1;

    /// <summary>Which inode it is.</summary>
    public InodeKey Key;

    /// <summary>References that the guest's kernel holds.</summary>
    public ulong References;

    /// <summary>Time of its making, where the file system tells it: another inode with its number has another one.</summary>
    public Libc.statx_timestamp Birth;

    /// <summary>The mount through which <see cref="Fd"/> was opened.</summary>
    public ulong MountId;

    /// <summary>The name that led here last, ended by a NUL; null for what never had one.</summary>
    public unsafe byte* Name;

    /// <summary>Index of the folder that has <see cref="Name"/>.</summary>
    public int Parent;

    /// <summary>Entries whose <see cref="Parent"/> this is.</summary>
    public int Children;

    /// <summary>The O_PATH descriptor; <see cref="None"/> while it is closed.</summary>
    public int Fd;

    /// <summary>Where it stands among the descriptors that may be closed.</summary>
    public int Slot;

    /// <summary>The next entry of the same bucket.</summary>
    public int Next;

    /// <summary>Requests that use the descriptor now.</summary>
    public int Pins;

    /// <summary>Handles that the guest has open on it.</summary>
    public int Opens;

    /// <summary>Number of the export whose root it is.</summary>
    public int Export;

    /// <summary>S_IFREG, S_IFDIR...</summary>
    public uint Type;

    /// <summary>The thread that was told that <see cref="Name"/> leads here no more; 0: none since the name was looked up.</summary>
    public uint Doubter;

    /// <summary>It was used since the descriptors were last looked through.</summary>
    public bool IsRecent;

    /// <summary>It lies on an overlay, whose names of one lower inode are separate inodes.</summary>
    public bool IsOverlay;

    /// <summary>Whether other names of its number are this inode.</summary>
    public LinkKind Links;

    /// <summary>The guest is told of what others do to it.</summary>
    public bool IsWatched;

    /// <summary>The table of keys leads to it.</summary>
    public bool IsHashed;

    /// <summary>The export below which it was reached is gone.</summary>
    public bool IsClosing;

    /// <summary>It has a name, which is not empty as that of a file without one.</summary>
    // Safe: the name has at least its NUL.
    public readonly unsafe bool HasName => Name is not null && *Name != 0;

    /// <summary>The time of birth in statx(2)'s answer; zero where the file system has none.</summary>
    public static Libc.statx_timestamp BirthOf(in Libc.statx_t stat) =>
        (stat.stx_mask & Libc.STATX_BTIME) != 0 ? stat.stx_btime : default;

    /// <summary>Type and time of birth are those of statx(2)'s answer.</summary>
    public readonly bool IsBornWith(in Libc.statx_t stat)
    {
        Libc.statx_timestamp birth = BirthOf(stat);

        // What is a device to the guest may be a marked file, whose mark only a descriptor shows.
        bool sameType = Type == (stat.stx_mode & Libc.S_IFMT) || (Type is Libc.S_IFCHR or Libc.S_IFBLK && DeviceMark.IsLikely(stat));
        return sameType && Birth.tv_sec == birth.tv_sec && Birth.tv_nsec == birth.tv_nsec;
    }
}
