namespace MicroVm.Linux.Native;

public static partial class Libc
{
#pragma warning disable CS1591 // named and documented by asm/ioctls.h, linux/sockios.h, net/if.h and linux/random.h
    public const uint TIOCSCTTY = 0x540E;
    public const uint TIOCSWINSZ = 0x5414;
    public const uint TIOCSPTLCK = 0x40045431;
    public const uint TIOCGPTPEER = 0x5441;
    public const uint TIOCGPTN = 0x80045430;
    public const uint SIOCGIFFLAGS = 0x8913;
    public const uint SIOCSIFFLAGS = 0x8914;
    public const int IFF_UP = 1;
    public const uint RNDADDENTROPY = 0x40085203;
    public const uint RNDRESEEDCRNG = 0x5207;
#pragma warning restore CS1591
}
