using MicroVm.Linux;

namespace MicroVm.VirtioFs.Protocol;

/// <summary>Names as requests carry them: raw bytes that end in a NUL and go to system calls undecoded.</summary>
internal static class FuseNames
{
    /// <summary>Longest path component in bytes, without the NUL (NAME_MAX).</summary>
    public const int MaxLength = 255;

    /// <summary>Longest symbolic link target in bytes, with the NUL (PATH_MAX).</summary>
    public const int MaxTarget = 4096;

    /// <summary>Checks that a name is one path component that names an entry: not empty, no slash, not "." or "..".</summary>
    /// <returns>0, or the negative errno to answer with.</returns>
    public static int CheckComponent(ReadOnlySpan<byte> name)
    {
        if (name.Length > MaxLength)
        {
            return -(int)Errno.ENAMETOOLONG;
        }

        return name.IsEmpty || name.Contains((byte)'/') || IsDot(name) || IsDotDot(name) ? -(int)Errno.EINVAL : 0;
    }

    /// <summary>The name is ".".</summary>
    public static bool IsDot(ReadOnlySpan<byte> name) => name.Length == 1 && name[0] == '.';

    /// <summary>The name is "..".</summary>
    public static bool IsDotDot(ReadOnlySpan<byte> name) => name.Length == 2 && name[0] == '.' && name[1] == '.';
}
