namespace MicroVm.Vmm.Devices.Pmem;

/// <summary>Requests and answers of virtio-pmem, one le32 each (virtio 1.2, 5.19.6).</summary>
internal static class PmemRequest
{
    /// <summary>Bytes of a request, and of an answer.</summary>
    public const int Size = 4;

    /// <summary>VIRTIO_PMEM_REQ_TYPE_FLUSH.</summary>
    public const uint Flush = 0;

    /// <summary>The answer to a request that was carried out.</summary>
    public const uint Ok = 0;

    /// <summary>The answer to one that was not.</summary>
    public const uint Failed = 0xffff_ffff;
}
