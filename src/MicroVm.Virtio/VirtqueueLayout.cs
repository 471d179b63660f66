namespace MicroVm.Virtio;

/// <summary>Where the driver put a split virtqueue (virtio 1.2, 2.7 and 4.2.2).</summary>
/// <param name="Size">Number of descriptors: a power of two, at most 32768.</param>
/// <param name="DescriptorTable">GPA of the descriptor table.</param>
/// <param name="AvailableRing">GPA of the available ring (the driver area).</param>
/// <param name="UsedRing">GPA of the used ring (the device area).</param>
public readonly record struct VirtqueueLayout(ushort Size, ulong DescriptorTable, ulong AvailableRing, ulong UsedRing);
