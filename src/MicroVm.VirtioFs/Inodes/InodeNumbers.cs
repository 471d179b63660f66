namespace MicroVm.VirtioFs.Inodes;

/// <summary>
/// Turns the host's (device, inode number) into the inode number that the guest sees. In a file system of the guest, the inodes of
/// its own host file system keep their numbers. Those of others, which are mounted below on the host, get a hash of device and
/// number with bit 63 set. So a number depends on nothing but its inode and its file system: it is the same after a restart and
/// in whatever order things were mounted.
/// </summary>
internal static class InodeNumbers
{
    /// <summary>The inode number of the synthesised directories.</summary>
    public const ulong Root = (0x7FFFul << 48) | 1;

    /// <summary>The guest's number for inode <paramref name="number"/> of <paramref name="device"/>.</summary>
    /// <param name="home">The device of the guest's file system.</param>
    /// <param name="device">The inode's device.</param>
    /// <param name="number">The host's number.</param>
    public static ulong Map(ulong home, ulong device, ulong number) =>
        device == home ? number : Mix(Mix(number) + device) | (1ul << 63);

    // splitmix64's finaliser, a bijection: two rounds of it collide for different inodes with probability 2^-63.
    private static ulong Mix(ulong x)
    {
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
        return x ^ (x >> 31);
    }
}
