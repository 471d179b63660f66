using System.Runtime.InteropServices;

namespace MicroVm.Linux.Native;

public static unsafe partial class Libc
{
#pragma warning disable CS1591 // named and documented by linux/capability.h
    public const uint _LINUX_CAPABILITY_VERSION_3 = 0x20080522;
    public const int CAP_CHOWN = 0;
    public const int CAP_DAC_OVERRIDE = 1;
    public const int CAP_DAC_READ_SEARCH = 2;
    public const int CAP_FOWNER = 3;
    public const int CAP_FSETID = 4;
    public const int CAP_KILL = 5;
    public const int CAP_SETGID = 6;
    public const int CAP_SETUID = 7;
    public const int CAP_NET_ADMIN = 12;
    public const int CAP_SYS_CHROOT = 18;
    public const int CAP_SYS_ADMIN = 21;
    public const int CAP_SYS_RESOURCE = 24;
    public const int CAP_MKNOD = 27;
    public const int CAP_SETFCAP = 31;

    /// <summary>CAP_LAST_CAP of Linux 5.9 and later.</summary>
    public const int CAP_LAST_CAP = 40;

    /// <summary>capget(2)'s and capset(2)'s first argument.</summary>
    public struct __user_cap_header_struct
    {
        public uint version;
        public int pid;
    }

    /// <summary>One of the two records of capget(2) and capset(2): capabilities 0 to 31, then 32 to 63.</summary>
    public struct __user_cap_data_struct
    {
        public uint effective;
        public uint permitted;
        public uint inheritable;
    }
    /// <summary>Declared by no header of glibc, which has the function. Of the thread whose id the header has; 0 is the caller.</summary>
    [LibraryImport("libc", SetLastError = true)]
    public static partial int capget(__user_cap_header_struct* header, __user_cap_data_struct* data);

    /// <inheritdoc cref="capget"/>
    [LibraryImport("libc", SetLastError = true)]
    public static partial int capset(__user_cap_header_struct* header, __user_cap_data_struct* data);
#pragma warning restore CS1591
}
