namespace MicroVm.Vmm.Devices.Mem;

/// <summary>What a virtio-mem device counts. Written by its thread, read by any.</summary>
internal sealed class MemCounters
{
    public long Requests;
    public long Refused;
    public long Errors;

    /// <summary>Counts a request and its answer.</summary>
    public void Count(MemRequestType type, MemResponseType answer)
    {
        Requests++;
        Refused += answer is MemResponseType.Nack or MemResponseType.Busy ? 1 : 0;
        Errors += answer is MemResponseType.Error || type > MemRequestType.State ? 1 : 0;
    }
}
