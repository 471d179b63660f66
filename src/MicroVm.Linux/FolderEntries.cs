using System.Runtime.InteropServices;
using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>Gets the name of an entry, zero-terminated, as long as the call lasts.</summary>
public unsafe delegate void FolderEntryHandler(byte* name);

/// <summary>The entries of an open folder (getdents64(2)).</summary>
public static unsafe class FolderEntries
{
    private const int BufferSize = 16 << 10;

    // struct linux_dirent64: ino, off (u64 each), reclen (u16), type (u8), name.
    private const int LengthOffset = 16, NameOffset = 19;

    /// <summary>Hands over each entry from the folder's position on, except for "." and ".."; one that has been removed has none.</summary>
    /// <param name="folder">The folder.</param>
    /// <param name="handler">Gets each entry.</param>
    /// <param name="target">The folder's path, for messages.</param>
    /// <param name="most">How many entries are handed over and read, where others fill the folder.</param>
    /// <exception cref="LinuxException">The folder cannot be read.</exception>
    public static void Read(SafeFd folder, FolderEntryHandler handler, string? target = null, int most = int.MaxValue)
    {
        ArgumentNullException.ThrowIfNull(folder);
        ArgumentNullException.ThrowIfNull(handler);

        // Not on the stack: trees are walked by recursion.
        byte* buffer = (byte*)NativeMemory.Alloc(BufferSize);
        try
        {
            nint length = 0;
            while (most > 0 && (length = Libc.getdents64(folder.Value, buffer, BufferSize)) > 0)
            {
                for (nint at = 0; at < length && most > 0; at += *(ushort*)(buffer + at + LengthOffset))
                {
                    byte* name = buffer + at + NameOffset;
                    if (!(name[0] == '.' && (name[1] == 0 || (name[1] == '.' && name[2] == 0))))
                    {
                        handler(name);
                        most--;
                    }
                }
            }

            // ENOENT: the folder has been removed.
            if (length >= 0 || Check.LastErrno != Errno.ENOENT)
            {
                Check.Result(length, "getdents64", target);
            }
        }
        finally
        {
            NativeMemory.Free(buffer);
        }
    }
}
