using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Vmm.Devices.Pmem;

/// <content>Saving and restoring. The image is not in the snapshot: the guest must find the same bytes at the same place.</content>
public sealed partial class PmemDevice
{
    /// <inheritdoc/>
    public override string? WhyNotSaved => null;

    /// <inheritdoc/>
    public override void SaveState(StateWriter writer)
    {
        ArgumentNullException.ThrowIfNull(writer);
        writer.Write(Gpa);
        writer.Write(_image.FileLength);
        writer.Write(_image.Identity);
        writer.Write(_image.Checksum());
    }

    /// <inheritdoc/>
    public override void RestoreState(StateReader reader)
    {
        ArgumentNullException.ThrowIfNull(reader);
        ulong gpa = reader.Read<ulong>();
        ulong length = reader.Read<ulong>();
        FileIdentity identity = reader.Read<FileIdentity>();
        ulong checksum = reader.Read<ulong>();
        if (gpa != Gpa || length != _image.FileLength)
        {
            throw new SnapshotException($"{Name}: the snapshot has an image of {length} bytes at {gpa:x}, the configuration one of {_image.FileLength} at {Gpa:x}");
        }

        // The same file, unchanged, need not be read.
        if (identity != _image.Identity && checksum != _image.Checksum())
        {
            throw new SnapshotException($"{Name}: the image is another than the one that the snapshot was made with");
        }
    }
}
