namespace MicroVm.Vmm.Devices.Pmem;

/// <summary>What tells a file from others, and from itself before a change, on one host.</summary>
/// <param name="Device">Number of the file system.</param>
/// <param name="Inode">Number of the file in it.</param>
/// <param name="ChangeSeconds">When content or attributes changed (ctime).</param>
/// <param name="ChangeNanoseconds">The rest of it.</param>
public readonly record struct FileIdentity(ulong Device, ulong Inode, long ChangeSeconds, ulong ChangeNanoseconds);
