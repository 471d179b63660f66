namespace MicroVm.Virtio;

/// <summary>A descriptor of a split virtqueue, as it lies in guest memory (virtio 1.2, 2.7.5).</summary>
/// <param name="Address">Guest physical address of the buffer.</param>
/// <param name="Length">Length of the buffer in bytes.</param>
/// <param name="Flags">NEXT, WRITE, INDIRECT.</param>
/// <param name="Next">Index of the next descriptor when NEXT is set.</param>
public readonly record struct Descriptor(ulong Address, uint Length, ushort Flags, ushort Next)
{
    /// <summary>VIRTQ_DESC_F_NEXT: the chain goes on at <see cref="Next"/>.</summary>
    public const ushort FlagNext = 1;

    /// <summary>VIRTQ_DESC_F_WRITE: the device writes the buffer.</summary>
    public const ushort FlagWrite = 2;

    /// <summary>VIRTQ_DESC_F_INDIRECT: the buffer is a table of descriptors (2.7.5.3).</summary>
    public const ushort FlagIndirect = 4;

    /// <summary>Size of a descriptor in guest memory, in bytes.</summary>
    public const int Size = 16;
}
