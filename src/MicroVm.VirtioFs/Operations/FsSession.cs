namespace MicroVm.VirtioFs.Operations;

/// <summary>What INIT agreed on with the guest's kernel; replaced as a whole, by INIT and at the session's end.</summary>
internal sealed record FsSession
{
    /// <summary>Largest READ and WRITE in guest pages: 1 MiB.</summary>
    public const ushort MaxPages = 256;

    /// <summary>The same in bytes.</summary>
    public const uint MaxWrite = MaxPages * 4096;

    /// <summary>The guest has the file system mounted.</summary>
    public bool IsOpen { get; init; }

    /// <summary>The guest mounts the folder of each host file system as a file system of its own.</summary>
    public bool HasSubmounts { get; init; }

    /// <summary>The guest opens FIFOs of the host by OPEN_FIFO.</summary>
    public bool OpensFifos { get; init; }

    /// <summary>The guest's kernel keeps the locks of files that only it uses.</summary>
    public bool LocksStayInGuest { get; init; }

    /// <summary>The guest maps files through the device's window.</summary>
    public bool MapsFiles { get; init; }

    /// <summary>SETXATTR has the struct with flags of its own.</summary>
    public bool SetXattrIsLong { get; init; }

    /// <summary>The guest's kernel takes the set-group-id bit out of a new file's mode when its maker may not set it.</summary>
    public bool GuestStripsSetGid { get; init; }
}
