namespace MicroVm.Vmm.Devices.Block;

/// <summary>What a disk counts. Written by its worker, read by any thread.</summary>
internal sealed class BlockCounters
{
    public long Reads;
    public long ReadBytes;
    public long Writes;
    public long WrittenBytes;
    public long Flushes;
    public long Discards;
    public long WriteZeroes;
    public long Errors;
    public long Unsupported;

    /// <summary>Reports all.</summary>
    public void Collect(string name, Action<string, long> add)
    {
        add(name + ".reads", Volatile.Read(ref Reads));
        add(name + ".read.bytes", Volatile.Read(ref ReadBytes));
        add(name + ".writes", Volatile.Read(ref Writes));
        add(name + ".written.bytes", Volatile.Read(ref WrittenBytes));
        add(name + ".flushes", Volatile.Read(ref Flushes));
        add(name + ".discards", Volatile.Read(ref Discards));
        add(name + ".write_zeroes", Volatile.Read(ref WriteZeroes));
        add(name + ".errors", Volatile.Read(ref Errors));
        add(name + ".unsupported", Volatile.Read(ref Unsupported));
    }
}
