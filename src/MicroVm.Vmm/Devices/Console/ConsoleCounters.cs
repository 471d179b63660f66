namespace MicroVm.Vmm.Devices.Console;

/// <summary>What the console counts. Written by the device thread (emergency bytes by vCPU threads), read by any.</summary>
internal sealed class ConsoleCounters
{
    public long InputBytes;
    public long OutputBytes;
    public long DiscardedBytes;
    public long EmergencyBytes;

    /// <summary>Reports all.</summary>
    public void Collect(string name, Action<string, long> add)
    {
        add(name + ".input.bytes", Volatile.Read(ref InputBytes));
        add(name + ".output.bytes", Volatile.Read(ref OutputBytes));
        add(name + ".output.discarded_bytes", Volatile.Read(ref DiscardedBytes));
        add(name + ".output.emergency_bytes", Volatile.Read(ref EmergencyBytes));
    }
}
