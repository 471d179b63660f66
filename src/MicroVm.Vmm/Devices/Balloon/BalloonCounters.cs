namespace MicroVm.Vmm.Devices.Balloon;

/// <summary>What a balloon counts. Written by its thread, read by any.</summary>
internal sealed class BalloonCounters
{
    public long Reports;
    public long ReportedBytes;
    public long InflatedPages;
    public long DeflatedRequests;
    public long Errors;

    /// <summary>Reports all.</summary>
    public void Collect(string name, Action<string, long> add)
    {
        add(name + ".reports", Volatile.Read(ref Reports));
        add(name + ".reported.bytes", Volatile.Read(ref ReportedBytes));
        add(name + ".inflated.pages", Volatile.Read(ref InflatedPages));
        add(name + ".deflated.requests", Volatile.Read(ref DeflatedRequests));
        add(name + ".errors", Volatile.Read(ref Errors));
    }
}
