namespace MicroVm.VirtioFs.Handles;

/// <summary>What a file handle is open on.</summary>
internal enum HandleKind : byte
{
    /// <summary>A regular file.</summary>
    File,

    /// <summary>A host directory.</summary>
    Directory,

    /// <summary>The synthesised root directory; it has no descriptor.</summary>
    Root,

    /// <summary>A FIFO of the host, whose descriptor never waits.</summary>
    Fifo,
}
