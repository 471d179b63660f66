using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Virtio.Mmio;

/// <summary>
/// The device status field (virtio 1.2, 2.1 and 3.1.1): which bits a driver may set, and when. Bits are read and added by any
/// thread; which of them a driver adds is decided under the transport's lock.
/// </summary>
internal sealed class DeviceStatus
{
    private const VirtioStatus OfADriver = VirtioStatus.Acknowledge | VirtioStatus.Driver | VirtioStatus.FeaturesOk | VirtioStatus.DriverOk;
    private int _bits;

    /// <summary>The field as the driver reads it.</summary>
    public VirtioStatus Value => (VirtioStatus)Volatile.Read(ref _bits);

    /// <summary>Adds bits.</summary>
    /// <returns>The field before.</returns>
    public VirtioStatus Add(VirtioStatus bits) => (VirtioStatus)Interlocked.Or(ref _bits, (int)bits);

    /// <summary>The state after a reset.</summary>
    public void Reset() => Interlocked.Exchange(ref _bits, 0);

    /// <summary>Whether a driver that finds <paramref name="current"/> may write <paramref name="written"/>, which is not 0.</summary>
    /// <param name="current">The field before.</param>
    /// <param name="written">The driver's value.</param>
    /// <param name="added">The bits that it adds.</param>
    public static bool IsAllowed(VirtioStatus current, VirtioStatus written, out VirtioStatus added)
    {
        VirtioStatus mine = current & ~VirtioStatus.NeedsReset;
        VirtioStatus wanted = written & ~VirtioStatus.NeedsReset;
        added = wanted & ~mine;

        // 2.1.1: the driver must not clear a bit; after FAILED it must reset before it starts again.
        return (mine & ~wanted) == 0 && (current & VirtioStatus.Failed) == 0
            && ((added & VirtioStatus.Failed) != 0 || IsInOrder(wanted));
    }

    /// <summary>Writes the field.</summary>
    public void Save(StateWriter writer) => writer.Write(_bits);

    /// <summary>Reads the field, which <see cref="IsPossible"/> checks.</summary>
    public void Restore(StateReader reader) => _bits = reader.Read<int>();

    /// <summary>Whether a device that works can have this status; <paramref name="active"/> says whether it serves its queues.</summary>
    public bool IsPossible(bool active) =>
        (Value & ~OfADriver) == 0 && IsInOrder(Value) && active == ((Value & VirtioStatus.DriverOk) != 0);

    private static bool IsInOrder(VirtioStatus status)
    {
        bool Has(VirtioStatus bit) => (status & bit) != 0;
        return (!Has(VirtioStatus.Driver) || Has(VirtioStatus.Acknowledge))
            && (!Has(VirtioStatus.FeaturesOk) || Has(VirtioStatus.Driver))
            && (!Has(VirtioStatus.DriverOk) || Has(VirtioStatus.FeaturesOk));
    }
}
