namespace MicroVm.Vmm.Fs;

/// <summary>
/// Turns the host's (device, inode number) into the one inode number that the guest sees, since all exports and what is
/// mounted beneath them are one file system to it. The first device's numbers stay as they are; another device's get
/// its index in their upper 16 bits. Numbers that need those bits themselves are hashed to 63 bits with bit 63 set.
/// </summary>
/// <remarks>Any thread. Allocates only when it meets a device for the first time.</remarks>
internal sealed class InodeNumbers
{
    /// <summary>The inode number of the synthesised root directory.</summary>
    public const ulong Root = (0x7FFFul << NumberBits) | 1;

    private const int NumberBits = 48;
    private const int MaxDevices = 0x7FFF;
    private readonly Lock _lock = new();
    private readonly Dictionary<ulong, uint> _devices = [];
    private readonly ulong _secret = (ulong)Random.Shared.NextInt64() | 1;
    private ulong _lastDevice = ulong.MaxValue;
    private uint _lastIndex;

    /// <summary>The guest's number for inode <paramref name="number"/> of <paramref name="device"/>.</summary>
    public ulong Map(ulong device, ulong number)
    {
        uint index = IndexOf(device);
        return index < MaxDevices && number >> NumberBits == 0
            ? ((ulong)index << NumberBits) | number
            : Hash(device, number) | (1ul << 63);
    }

    private uint IndexOf(ulong device)
    {
        lock (_lock)
        {
            if (device == _lastDevice)
            {
                return _lastIndex;
            }

            if (!_devices.TryGetValue(device, out uint index))
            {
                index = (uint)_devices.Count;
                if (index >= MaxDevices)
                {
                    return MaxDevices;
                }

                _devices.Add(device, index);
            }

            (_lastDevice, _lastIndex) = (device, index);
            return index;
        }
    }

    // Two rounds of splitmix64's finaliser: equal inputs give equal numbers, others collide with probability 2^-63.
    private ulong Hash(ulong device, ulong number) => Mix(Mix(number ^ _secret) + device);

    private static ulong Mix(ulong x)
    {
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
        return x ^ (x >> 31);
    }
}
