using System.Runtime.InteropServices;

namespace MicroVm.VmmControl;

/// <summary>
/// A message of the channel (a pair of SOCK_SEQPACKET) on which a sandbox process lends its VMM Unix sockets that have no name yet.
/// The virtio-fs server binds one where the guest makes a socket, so that the host can listen in the guest's place.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
public record struct SocketNotice
{
    /// <summary>Sockets that one VM's guest may have on the host at once.</summary>
    public const int MaxSlots = 128;

    /// <summary>What has happened.</summary>
    public SocketNoticeKind Kind;

    /// <summary>Which socket: below <see cref="MaxSlots"/>, chosen by the sandbox process.</summary>
    public uint Slot;

    /// <summary>For <see cref="SocketNoticeKind.Bound"/>: the node id by which the guest's kernel knows the socket's inode.</summary>
    public ulong Node;

    /// <summary>For Bound: the inode's number on the host.</summary>
    public ulong Inode;

    /// <summary>For Bound: the major number of the inode's device.</summary>
    public uint DeviceMajor;

    /// <summary>For Bound: the minor number of the inode's device.</summary>
    public uint DeviceMinor;
}

/// <summary>What a <see cref="SocketNotice"/> says.</summary>
public enum SocketNoticeKind : uint
{
    /// <summary>To the VMM: a socket comes with this message (SCM_RIGHTS).</summary>
    Lent = 1,

    /// <summary>From the VMM: it has a name that the guest made.</summary>
    Bound = 2,

    /// <summary>From the VMM: the guest knows its inode no more.</summary>
    Released = 3,
}
