namespace MicroVm.Linux.Native;

/// <summary>linux/kcmp.h.</summary>
public static unsafe partial class Libc
{
#pragma warning disable CS1591 // named and documented by linux/kcmp.h
    public const int KCMP_FILE = 0;
}
