using MicroVm.Linux.Native;
using MicroVm.VirtioFs.HostFiles;

namespace MicroVm.VirtioFs.Inodes;

/// <summary>
/// What makes two names one inode to the guest: the host's inode, reached under equal rights. Neither the export nor the
/// mount is part of it, so that a folder shown twice is one set of inodes.
/// </summary>
/// <param name="Device">st_dev.</param>
/// <param name="Number">st_ino.</param>
/// <param name="Rights">
/// The rules of the export, the rights of the mount, and the guest's file system that the inode is in (<see cref="RightsOf"/>).
/// </param>
/// <param name="Link">
/// 0 where device and number say it all. Overlay's names of one lower inode are separate inodes with one number
/// (<see cref="OverlayLinks"/>): all but the first that the guest met have a hash of parent and name here.
/// </param>
internal readonly record struct InodeKey(ulong Device, ulong Number, uint Rights, uint Link)
{
    private const int RulesBits = 16;
    private const uint ReadOnlyMount = 1u << RulesBits;
    private const int HomeShift = RulesBits + 1;

    /// <summary>Takes the key out of statx(2)'s answer.</summary>
    public InodeKey(in Libc.statx_t stat, uint rights, uint link = 0)
        : this(DeviceOf(stat), stat.stx_ino, rights, link)
    {
    }

    /// <summary>Number of the export's rules in the table of exports.</summary>
    public int Rules => (int)(Rights & (ReadOnlyMount - 1));

    /// <summary>Number of the guest's file system, which is a host file system's folder in the table of exports.</summary>
    public int Home => (int)(Rights >> HomeShift);

    /// <summary>How many <see cref="Home"/> can tell apart.</summary>
    public static int MaxHomes => 1 << (32 - HomeShift);

    /// <summary>The device of statx(2)'s answer as one number.</summary>
    public static ulong DeviceOf(in Libc.statx_t stat) => ((ulong)stat.stx_dev_major << 32) | stat.stx_dev_minor;

    /// <summary>
    /// The rights below an export with rules number <paramref name="rules"/>, by a mount that is read-only or not, in the guest's
    /// file system <paramref name="home"/>.
    /// </summary>
    public static uint RightsOf(int rules, bool mountIsReadOnly, int home) =>
        (uint)rules | (mountIsReadOnly ? ReadOnlyMount : 0) | ((uint)home << HomeShift);

    /// <summary>A hash for tables: names of one number that are separate inodes spread as well.</summary>
    public override int GetHashCode()
    {
        ulong h = (Number * 0x9E3779B97F4A7C15) ^ (Device * 0xC2B2AE3D27D4EB4F) ^ ((((ulong)Link << 32) | Rights) * 0x165667B19E3779F9);
        return (int)(h >> 32) ^ (int)h;
    }
}
