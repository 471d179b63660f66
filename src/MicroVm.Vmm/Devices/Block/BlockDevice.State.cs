using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Vmm.Devices.Block;

/// <content>Saving and restoring. What is written is the disk's, which the snapshot does not hold.</content>
public sealed partial class BlockDevice
{
    /// <inheritdoc/>
    public override string? WhyNotSaved => null;

    /// <inheritdoc/>
    public override void SaveState(StateWriter writer)
    {
        ArgumentNullException.ThrowIfNull(writer);
        writer.Write(_config.Capacity);
    }

    /// <inheritdoc/>
    public override void RestoreState(StateReader reader)
    {
        ArgumentNullException.ThrowIfNull(reader);
        ulong sectors = reader.Read<ulong>();
        if (sectors != _config.Capacity)
        {
            throw new SnapshotException($"{Name}: the snapshot is of a disk with {sectors} sectors, the file has {_config.Capacity}");
        }
    }
}
