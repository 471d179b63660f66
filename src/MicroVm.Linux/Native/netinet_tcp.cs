namespace MicroVm.Linux.Native;

public static partial class Libc
{
#pragma warning disable CS1591 // named and documented by netinet/tcp.h
    public const int TCP_NODELAY = 1;
#pragma warning restore CS1591
}
