using System.Runtime.InteropServices;

namespace MicroVm.Linux.Native;

public static unsafe partial class Libc
{
#pragma warning disable CS1591 // named and documented by linux/vm_sockets.h
    public const int AF_VSOCK = 40;
    public const uint VMADDR_CID_ANY = uint.MaxValue;
    public const uint VMADDR_CID_HOST = 2;
    public const uint VMADDR_PORT_ANY = uint.MaxValue;

    /// <summary>A vsock address: context id and port.</summary>
    public struct sockaddr_vm
    {
        public ushort svm_family;
        public ushort svm_reserved1;
        public uint svm_port;
        public uint svm_cid;
        public byte svm_flags;
        public fixed byte svm_zero[3];
    }
#pragma warning restore CS1591
}
