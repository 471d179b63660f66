namespace MicroVm.Vmm.Devices.Vsock;

/// <summary>Numbers of the protocol and this device's limits.</summary>
internal static class VsockLimits
{
    /// <summary>VIRTIO_VSOCK_TYPE_STREAM.</summary>
    public const ushort TypeStream = 1;

    /// <summary>VIRTIO_VSOCK_F_STREAM (5.10.3).</summary>
    public const ulong FeatureStream = 1;

    /// <summary>The host's context id (5.10.4).</summary>
    public const uint HostCid = 2;

    /// <summary>Largest payload put into one packet, as Linux has it; drivers may send larger ones.</summary>
    public const int MaxPayload = 64 * 1024;

    /// <summary>Streams at a time, in whatever state.</summary>
    public const int MaxConnections = 1024;

    /// <summary>Host clients at a time whose stream is not established yet.</summary>
    public const int MaxPending = 128;

    /// <summary>Resets waiting for receive buffers at which no more of the guest's packets are taken (5.10.6.1).</summary>
    public const int MaxQueuedResets = 256;

    /// <summary>Credit given to the guest for a stream; the buffer behind it exists only while the host's socket is full.</summary>
    public const int Buffer = 256 * 1024;

    /// <summary>The same for streams beyond <see cref="FullBufferConnections"/>: bounds what a hostile guest can pin.</summary>
    public const int SmallBuffer = 64 * 1024;

    /// <summary>How many streams get the full buffer.</summary>
    public const int FullBufferConnections = 64;

    /// <summary>Packets handled per direction before other devices have a turn.</summary>
    public const int TurnBudget = 128;

    /// <summary>Segments passed to one system call.</summary>
    public const int MaxVectors = 20;

    /// <summary>How long a host client may take to send its CONNECT line.</summary>
    public const int HandshakeMilliseconds = 10_000;

    /// <summary>How long the guest may take to answer a request.</summary>
    public const int RequestMilliseconds = 30_000;

    /// <summary>Longest CONNECT line, newline included: <c>CONNECT 4294967295\n</c>.</summary>
    public const int MaxConnectLine = 19;

    /// <summary>First port given to host clients; they run up to <see cref="LastHostPort"/> and start again.</summary>
    public const uint FirstHostPort = 0x4000_0000;

    /// <summary>Last port given to host clients.</summary>
    public const uint LastHostPort = 0x7fff_ffff;
}
