using System.Runtime.InteropServices;

namespace MicroVm.Linux.Native;

public static unsafe partial class Libc
{
#pragma warning disable CS1591 // named and documented by spawn.h
    public const short POSIX_SPAWN_SETSIGDEF = 0x4;
    public const short POSIX_SPAWN_SETSIGMASK = 0x8;
    public const short POSIX_SPAWN_SETSID = 0x80;

    /// <summary>Opaque; initialised and freed by its own calls.</summary>
    [StructLayout(LayoutKind.Sequential, Size = 80)]
    public struct posix_spawn_file_actions_t
    {
        public int __allocated;
    }

    /// <summary>Opaque; initialised and freed by its own calls.</summary>
    [StructLayout(LayoutKind.Sequential, Size = 336)]
    public struct posix_spawnattr_t
    {
        public short __flags;
    }

    [LibraryImport("libc")]
    public static partial int posix_spawn(int* pid, byte* path, posix_spawn_file_actions_t* actions, posix_spawnattr_t* attr, byte** argv, byte** envp);

    [LibraryImport("libc")]
    public static partial int posix_spawn_file_actions_init(posix_spawn_file_actions_t* actions);

    [LibraryImport("libc")]
    public static partial int posix_spawn_file_actions_destroy(posix_spawn_file_actions_t* actions);

    [LibraryImport("libc")]
    public static partial int posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t* actions, int fd, int newfd);

    [LibraryImport("libc")]
    public static partial int posix_spawn_file_actions_addclosefrom_np(posix_spawn_file_actions_t* actions, int from);

    [LibraryImport("libc")]
    public static partial int posix_spawn_file_actions_addchdir_np(posix_spawn_file_actions_t* actions, byte* path);

    [LibraryImport("libc")]
    public static partial int posix_spawnattr_init(posix_spawnattr_t* attr);

    [LibraryImport("libc")]
    public static partial int posix_spawnattr_destroy(posix_spawnattr_t* attr);

    [LibraryImport("libc")]
    public static partial int posix_spawnattr_setflags(posix_spawnattr_t* attr, short flags);

    [LibraryImport("libc")]
    public static partial int posix_spawnattr_setsigmask(posix_spawnattr_t* attr, sigset_t* mask);

    [LibraryImport("libc")]
    public static partial int posix_spawnattr_setsigdefault(posix_spawnattr_t* attr, sigset_t* set);
#pragma warning restore CS1591
}
