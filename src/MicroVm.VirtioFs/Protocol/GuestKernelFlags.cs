namespace MicroVm.VirtioFs.Protocol;

/// <summary>Flags that this project's guest kernel adds to the protocol (kernel-config/patches).</summary>
internal static class GuestKernelFlags
{
    /// <summary>Bit 59 of INIT's flags: the guest's kernel knows <see cref="FifoOfHost"/> and sends OPEN_FIFO.</summary>
    public const uint HostFifos = 1u << 27;

    /// <summary>
    /// Bit 60 of INIT's flags: FUSE_ATTR_DAX means that the file is DAX from the moment when it is first mapped shared. Without
    /// it, all that is read of a file would go through the window, which is slower for small files.
    /// </summary>
    public const uint DaxAtMmap = 1u << 28;

    /// <summary>Bit 61 of INIT's flags: the guest's kernel sends WATCH and EVENTS.</summary>
    public const uint HostEvents = 1u << 29;

    /// <summary>Bit 62 of INIT's flags: files that are open with FOPEN_NOFLUSH keep their locks in the guest.</summary>
    public const uint NoFlushLocalLocks = 1u << 30;

    /// <summary>Bit 29 of an inode's flags, FUSE_ATTR_FIFO of the guest's kernel: it opens, reads and writes the FIFO here.</summary>
    public const uint FifoOfHost = 1u << 29;

    /// <summary>Bit 30 of an inode's flags, FUSE_ATTR_DAX_WRITABLE of the guest's kernel: FUSE_ATTR_DAX waits for a mapping that can be written to.</summary>
    public const uint DaxWhenWritable = 1u << 30;
}
