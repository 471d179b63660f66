using System.Runtime.InteropServices;
using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>Folders with all that is in them.</summary>
public static unsafe class HostFolder
{
    /// <summary>
    /// Removes a folder and all that is beneath it; links are removed and not followed. One that is not there is no error, and neither is
    /// what others remove meanwhile.
    /// </summary>
    /// <exception cref="LinuxException">Something cannot be removed.</exception>
    public static void Remove(string path)
    {
        fixed (byte* name = System.Text.Encoding.UTF8.GetBytes(path + "\0"))
        {
            Remove(Libc.AT_FDCWD, name, path);
        }
    }

    private static void Remove(int parent, byte* name, string path)
    {
        using (SafeFd folder = new(Libc.openat(parent, name, Libc.O_RDONLY | Libc.O_DIRECTORY | Libc.O_NOFOLLOW | Libc.O_CLOEXEC, 0)))
        {
            if (folder.IsInvalid)
            {
                if (Check.LastErrno != Errno.ENOENT)
                {
                    Check.Throw("open", path);
                }

                return;
            }

            Empty(folder, path);
        }

        if (Libc.unlinkat(parent, name, Libc.AT_REMOVEDIR) < 0 && Check.LastErrno != Errno.ENOENT)
        {
            Check.Throw("rmdir", path);
        }
    }

    private static void Empty(SafeFd folder, string path)
    {
        bool removed;
        do
        {
            // What is removed may move what was not listed yet: from the start again, until nothing is left.
            removed = false;
            _ = Libc.lseek(folder.Value, 0, Libc.SEEK_SET);
            FolderEntries.Read(folder, name => removed |= RemoveEntry(folder, name, path), path);
        }
        while (removed);
    }

    /// <returns>Whether it was there.</returns>
    private static bool RemoveEntry(SafeFd folder, byte* name, string path)
    {
        Errno errno = Libc.unlinkat(folder.Value, name, 0) == 0 ? Errno.OK : Check.LastErrno;
        if (errno is not (Errno.OK or Errno.ENOENT))
        {
            string entry = $"{path}/{Marshal.PtrToStringUTF8((nint)name)}";
            if (errno != Errno.EISDIR)
            {
                throw new LinuxException(errno, "unlink", entry);
            }

            Remove(folder.Value, name, entry);
        }

        return errno != Errno.ENOENT;
    }
}
