using System.Runtime.InteropServices;

namespace MicroVm.Linux.Native;

public static unsafe partial class Libc
{
#pragma warning disable CS1591 // named and documented by termios.h and asm-generic/termios.h
    public const nuint TIOCGWINSZ = 0x5413;
    public const uint OPOST = 1;
    public const uint ONLCR = 4;
    public const int TCSANOW = 0;
    public const int TCSADRAIN = 1;

    /// <summary>A terminal's settings, in glibc's layout.</summary>
    public struct termios
    {
        public uint c_iflag;
        public uint c_oflag;
        public uint c_cflag;
        public uint c_lflag;
        public byte c_line;
        public fixed byte c_cc[32];
        public uint c_ispeed;
        public uint c_ospeed;
    }

    /// <summary>A terminal's size in characters and pixels.</summary>
    public struct winsize
    {
        public ushort ws_row;
        public ushort ws_col;
        public ushort ws_xpixel;
        public ushort ws_ypixel;
    }

    [LibraryImport("libc", SetLastError = true)]
    public static partial int tcgetattr(int fd, termios* settings);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int tcsetattr(int fd, int actions, termios* settings);

    [LibraryImport("libc")]
    public static partial void cfmakeraw(termios* settings);
#pragma warning restore CS1591
}
