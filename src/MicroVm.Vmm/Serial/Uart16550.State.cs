using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Vmm.Serial;

/// <content>Saving and restoring.</content>
public sealed partial class Uart16550
{
    /// <summary>Version of the section.</summary>
    public const uint StateVersion = 1;

    /// <summary>Writes the registers.</summary>
    public void Save(StateWriter writer)
    {
        ArgumentNullException.ThrowIfNull(writer);
        lock (_lock)
        {
            writer.Write(_interruptEnable);
            writer.Write(_lineControl);
            writer.Write(_modemControl);
            writer.Write(_scratch);
            writer.Write(_fifoControl);
            writer.Write(_divisorLow);
            writer.Write(_divisorHigh);
            writer.Write(_looped);
            writer.WriteFlag(_loopedReady);
            writer.WriteFlag(_emptyPending);
        }
    }

    /// <summary>Reads the registers, and raises an interrupt that was on its way.</summary>
    /// <exception cref="SnapshotException">They are malformed.</exception>
    public void Restore(StateReader reader)
    {
        ArgumentNullException.ThrowIfNull(reader);
        lock (_lock)
        {
            // The upper bits of these two do not exist.
            _interruptEnable = (byte)(reader.Read<byte>() & 0xf);
            _lineControl = reader.Read<byte>();
            _modemControl = (byte)(reader.Read<byte>() & 0x1f);
            _scratch = reader.Read<byte>();
            _fifoControl = reader.Read<byte>();
            _divisorLow = reader.Read<byte>();
            _divisorHigh = reader.Read<byte>();
            _looped = reader.Read<byte>();
            _loopedReady = reader.ReadFlag();
            bool pending = reader.ReadFlag();
            reader.End();
            if (pending)
            {
                RaiseEmpty();
            }
        }
    }
}
