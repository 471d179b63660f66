namespace MicroVm.Shim.Bootstrap;

/// <summary>What the executable is asked to do.</summary>
internal enum ShimAction
{
    /// <summary>No action: serve containerd on the socket that <c>start</c> bound.</summary>
    Serve,

    /// <summary><c>start</c>: bind the socket, leave a server behind, print the address.</summary>
    Start,

    /// <summary><c>delete</c>: remove what a dead server left.</summary>
    Delete,

    /// <summary><c>-info</c>: print a RuntimeInfo message.</summary>
    Info,

    /// <summary><c>-v</c>: print the version.</summary>
    Version,
}
