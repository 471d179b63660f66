namespace MicroVm.Bus;

/// <summary>Answers a guest's accesses to a range of ports or of physical addresses. Called on vCPU threads, several at once.</summary>
public interface IBusDevice
{
    /// <summary>
    /// Reads <paramref name="data"/>.Length (1, 2, 4 or 8) bytes at <paramref name="offset"/> from the range's start. The
    /// whole of <paramref name="data"/> is written.
    /// </summary>
    void Read(ulong offset, Span<byte> data);

    /// <summary>Writes <paramref name="data"/>.Length (1, 2, 4 or 8) bytes at <paramref name="offset"/> from the range's start.</summary>
    void Write(ulong offset, ReadOnlySpan<byte> data);
}
