namespace MicroVm.Vmm.Devices.Vsock;

/// <summary>VIRTIO_VSOCK_OP_* (5.10.6).</summary>
internal enum VsockOperation : ushort
{
    Invalid = 0,
    Request = 1,
    Response = 2,
    Reset = 3,
    Shutdown = 4,
    Data = 5,
    CreditUpdate = 6,
    CreditRequest = 7,
}

/// <summary>Flags of <see cref="VsockOperation.Shutdown"/> (5.10.6.5): what the sender of the packet will do no more.</summary>
[Flags]
internal enum VsockShutdown : byte
{
    None = 0,
    Receive = 1,
    Send = 2,
    Both = 3,
}
