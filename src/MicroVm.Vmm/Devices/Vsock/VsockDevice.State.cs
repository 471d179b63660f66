using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Vmm.Devices.Vsock;

/// <content>
/// Saving and restoring. Streams end with the process that has their sockets: the guest of a restored VM is told so (5.10.6.7).
/// Its listening sockets go on.
/// </content>
public sealed partial class VsockDevice
{
    /// <inheritdoc/>
    public override string? WhyNotSaved => null;

    /// <inheritdoc/>
    public override void SaveState(StateWriter writer)
    {
        ArgumentNullException.ThrowIfNull(writer);
        writer.Write(_muxer.Cid);
        writer.WriteFlag(_muxer.HasFlows || _resetEventPending);
    }

    /// <inheritdoc/>
    public override void RestoreState(StateReader reader)
    {
        ArgumentNullException.ThrowIfNull(reader);
        ulong cid = reader.Read<ulong>();
        bool hadStreams = reader.ReadFlag();
        _resetEventPending = hadStreams || cid != _muxer.Cid;
    }
}
