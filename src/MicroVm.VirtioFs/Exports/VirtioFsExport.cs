using MicroVm.Linux;
using MicroVm.VmmControl;

namespace MicroVm.VirtioFs.Exports;

/// <summary>A host directory or regular file to be shown as an entry of a virtio-fs root directory.</summary>
/// <param name="Name">The entry's name: one path component of at most 255 bytes in UTF-8.</param>
/// <param name="Fd">The directory or file; O_PATH is enough. The device that it is given to takes it over.</param>
/// <param name="ReadOnly">Answer every change with EROFS, whatever the guest mounted it as.</param>
/// <param name="Cache">How long the guest may believe what it was told.</param>
/// <param name="HidesMounts">The directory is shown without the mounts below it, unlike others that may lead to it.</param>
/// <param name="SharesSockets">The host listens in place of sockets that the guest makes below it, and FIFOs are the host's.</param>
public sealed record VirtioFsExport(string Name, SafeFd Fd, bool ReadOnly, FsCache Cache = FsCache.Exclusive, bool HidesMounts = false, bool SharesSockets = false);
