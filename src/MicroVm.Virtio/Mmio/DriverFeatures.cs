using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Virtio.Mmio;

/// <summary>Negotiation of features (virtio 1.2, 2.2), 32 bits at a time. Guarded by the transport's lock.</summary>
internal sealed class DriverFeatures
{
    private uint _offeredSel;
    private uint _acceptedSel;

    /// <summary>The bits that the driver accepts.</summary>
    public ulong Accepted { get; private set; }

    /// <summary>DeviceFeaturesSel: the half that <see cref="ReadOffered"/> reads.</summary>
    public void SelectOffered(uint value) => _offeredSel = value;

    /// <summary>DriverFeaturesSel: the half that <see cref="TryWrite"/> writes.</summary>
    public void SelectAccepted(uint value) => _acceptedSel = value;

    /// <summary>DeviceFeatures: the selected half of <paramref name="offered"/>.</summary>
    public uint ReadOffered(ulong offered) => _offeredSel switch
    {
        0 => (uint)offered,
        1 => (uint)(offered >> 32),
        _ => 0,
    };

    /// <summary>DriverFeatures: stores a half.</summary>
    /// <returns>False when no such bits exist.</returns>
    public bool TryWrite(uint value)
    {
        if (_acceptedSel == 0)
        {
            Accepted = (Accepted & 0xffff_ffff_0000_0000) | value;
        }
        else if (_acceptedSel == 1)
        {
            Accepted = (Accepted & 0xffff_ffff) | ((ulong)value << 32);
        }
        else if (value != 0)
        {
            // Bits from 64 on: none is offered, so accepting one is as wrong as accepting any other that is not.
            Accepted &= ~VirtioFeature.Version1;
            return false;
        }

        return true;
    }

    /// <summary>Whether the driver accepts nothing that is not in <paramref name="offered"/>, and is not a legacy one.</summary>
    public bool AreAcceptable(ulong offered) => (Accepted & ~offered) == 0 && Has(VirtioFeature.Version1);

    /// <summary>Whether the driver accepts a feature.</summary>
    public bool Has(ulong feature) => (Accepted & feature) != 0;

    /// <summary>Back to the state after a device reset.</summary>
    public void Reset()
    {
        Accepted = 0;
        _offeredSel = 0;
        _acceptedSel = 0;
    }

    /// <summary>Writes the registers.</summary>
    public void Save(StateWriter writer)
    {
        writer.Write(Accepted);
        writer.Write(_offeredSel);
        writer.Write(_acceptedSel);
    }

    /// <summary>Reads the registers; what they accept is checked by <see cref="AreAcceptable"/>.</summary>
    public void Restore(StateReader reader)
    {
        Accepted = reader.Read<ulong>();
        _offeredSel = reader.Read<uint>();
        _acceptedSel = reader.Read<uint>();
    }
}
