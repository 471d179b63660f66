using MicroVm.Linux.Native;

namespace MicroVm.Vmm.Fs;

/// <summary>
/// What makes two host files the same inode to the guest. The mount id keeps a bind mount apart from what it shows, and
/// the export keeps a read-only view apart from a writable one.
/// </summary>
internal readonly struct InodeKey : IEquatable<InodeKey>
{
    /// <summary>Takes the key out of statx(2)'s answer.</summary>
    public InodeKey(in Libc.statx_t stat, int export)
    {
        Device = DeviceOf(stat);
        Number = stat.stx_ino;

        // Kernels before 5.8 do not tell it.
        MountId = (stat.stx_mask & Libc.STATX_MNT_ID) != 0 ? stat.stx_mnt_id : 0;
        Export = export;
    }

    /// <summary>st_dev.</summary>
    public ulong Device { get; }

    /// <summary>st_ino.</summary>
    public ulong Number { get; }

    /// <summary>The mount through which it was reached.</summary>
    public ulong MountId { get; }

    /// <summary>Index of the export below which it was reached.</summary>
    public int Export { get; }

    /// <summary>The device of statx(2)'s answer as one number.</summary>
    public static ulong DeviceOf(in Libc.statx_t stat) => ((ulong)stat.stx_dev_major << 32) | stat.stx_dev_minor;

    /// <inheritdoc/>
    public bool Equals(InodeKey other) =>
        Number == other.Number && Device == other.Device && MountId == other.MountId && Export == other.Export;

    /// <inheritdoc/>
    public override bool Equals(object? obj) => obj is InodeKey other && Equals(other);

    /// <inheritdoc/>
    public override int GetHashCode()
    {
        ulong h = (Number * 0x9E3779B97F4A7C15) ^ (Device * 0xC2B2AE3D27D4EB4F) ^ (MountId * 0x165667B19E3779F9) ^ (uint)Export;
        return (int)(h >> 32) ^ (int)h;
    }
}
