namespace MicroVm.Vmm.Devices.Vsock;

/// <summary>Where a stream is in its life.</summary>
internal enum VsockState : byte
{
    /// <summary>Not in use; pooled.</summary>
    Closed,

    /// <summary>A host client that has not sent its CONNECT line.</summary>
    Handshake,

    /// <summary>A host client that waits for the guest's driver.</summary>
    Held,

    /// <summary>The guest has been, or is about to be, asked to accept.</summary>
    Requested,

    /// <summary>Data flows.</summary>
    Established,

    /// <summary>Both directions were shut down towards the guest, the host's socket is closed; the guest's reset is awaited.</summary>
    Closing,

    /// <summary>The guest is done; what it sent is still being written to the host's socket.</summary>
    Lingering,
}

/// <summary>Control packets that a stream has to send when a receive buffer comes free.</summary>
[Flags]
internal enum VsockPending : byte
{
    None = 0,
    Request = 1,
    Response = 2,
    Shutdown = 4,
    CreditUpdate = 8,
    CreditRequest = 16,
}

/// <summary>What becomes of a stream after an event that it handled.</summary>
internal enum VsockVerdict : byte
{
    /// <summary>It goes on, and may have something to send.</summary>
    Keep,

    /// <summary>A host client that named a port: the guest can be asked.</summary>
    Connect,

    /// <summary>The guest accepted a host client: it waits no more.</summary>
    Accepted,

    /// <summary>It ends because one side refused the other, which is counted.</summary>
    Refuse,

    /// <summary>The guest is done with it: its ports are free, the rest of its bytes is still written to the host.</summary>
    Detach,

    /// <summary>It ends at once; the guest does not know it, or knows of the end.</summary>
    Drop,

    /// <summary>It ends at once, and the guest is told by a reset.</summary>
    Reset,

    /// <summary>The guest broke the protocol: it ends, which is counted, and a reset answers the packet.</summary>
    Violation,
}
