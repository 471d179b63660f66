using System.Runtime.InteropServices;

namespace MicroVm.Linux.Native;

public static unsafe partial class Libc
{
#pragma warning disable CS1591 // named and documented by unistd.h and sys/syscall.h
    public const long SYS_setgroups = 116;
    public const long SYS_setresuid = 117;
    public const long SYS_setresgid = 119;
    public const long SYS_capget = 125;
    public const long SYS_capset = 126;
    public const long SYS_getdents64 = 217;
    public const long SYS_read = 0;
    public const long SYS_close = 3;
    public const long SYS_rt_sigprocmask = 14;
    public const long SYS_fcntl = 72;
    public const long SYS_mount = 165;
    public const long SYS_umount2 = 166;
    public const long SYS_execveat = 322;
    public const long SYS_statx = 332;
    public const long SYS_write = 1;
    public const long SYS_rt_sigaction = 13;
    public const long SYS_ioctl = 16;
    public const long SYS_execve = 59;
    public const long SYS_chdir = 80;
    public const long SYS_fchdir = 81;
    public const long SYS_umask = 95;
    public const long SYS_setsid = 112;
    public const long SYS_setfsuid = 122;
    public const long SYS_setfsgid = 123;
    public const long SYS_sched_setaffinity = 203;
    public const long SYS_personality = 135;
    public const long SYS_chroot = 161;
    public const long SYS_pivot_root = 155;
    public const long SYS_prctl = 157;
    public const long SYS_ioprio_set = 251;
    public const long SYS_unshare = 272;
    public const long SYS_dup3 = 292;
    public const long SYS_prlimit64 = 302;
    public const long SYS_setns = 308;
    public const long SYS_kcmp = 312;
    public const long SYS_sched_setattr = 314;
    public const long SYS_seccomp = 317;
    public const long SYS_bpf = 321;
    public const long SYS_open_tree = 428;
    public const long SYS_move_mount = 429;
    public const long SYS_fsopen = 430;
    public const long SYS_fsconfig = 431;
    public const long SYS_fsmount = 432;
    public const long SYS_mount_setattr = 442;
    public const long SYS_openat2 = 437;
    public const long SYS_pidfd_open = 434;
    public const long SYS_pidfd_send_signal = 424;
    public const long SYS_close_range = 436;
    public const long SYS_gettid = 186;
    public const long SYS_getcwd = 79;
    public const long SYS_recvmsg = 47;
    public const long SYS_clone3 = 435;
    public const long SYS_pidfd_getfd = 438;
    public const long SYS_process_vm_readv = 310;
    public const long SYS_tgkill = 234;

    public const int X_OK = 1;
    public const int R_OK = 4;
    public const int SEEK_SET = 0;
    public const int SEEK_CUR = 1;
    public const int SEEK_END = 2;
    public const int SEEK_DATA = 3;
    public const int SEEK_HOLE = 4;

    [LibraryImport("libc", SetLastError = true)]
    public static partial int close(int fd);

    [LibraryImport("libc", SetLastError = true)]
    public static partial nint read(int fd, void* buf, nuint count);

    [LibraryImport("libc", SetLastError = true)]
    public static partial nint write(int fd, void* buf, nuint count);

    [LibraryImport("libc", SetLastError = true)]
    public static partial nint pread(int fd, void* buf, nuint count, long offset);

    [LibraryImport("libc", SetLastError = true)]
    public static partial nint pwrite(int fd, void* buf, nuint count, long offset);

    [LibraryImport("libc", SetLastError = true)]
    public static partial long lseek(int fd, long offset, int whence);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int ftruncate(int fd, long length);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int fsync(int fd);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int fdatasync(int fd);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int syncfs(int fd);

    [LibraryImport("libc", SetLastError = true)]
    public static partial nint copy_file_range(int infd, long* inoff, int outfd, long* outoff, nuint length, uint flags);

    [LibraryImport("libc", SetLastError = true)]
    public static partial nint readlinkat(int dirfd, byte* pathname, byte* buf, nuint bufsiz);

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    public static partial int symlink(string target, string linkpath);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int symlinkat(byte* target, int newdirfd, byte* linkpath);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int linkat(int olddirfd, byte* oldpath, int newdirfd, byte* newpath, int flags);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int unlinkat(int dirfd, byte* pathname, int flags);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int fchownat(int dirfd, byte* pathname, uint owner, uint group, int flags);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int fchdir(int fd);

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    public static partial int access(string pathname, int mode);

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    public static partial int unlink(string pathname);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int pipe2(int* fds, int flags);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int dup3(int oldfd, int newfd, int flags);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int fchown(int fd, uint owner, uint group);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int sethostname(byte* name, nuint len);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int setdomainname(byte* name, nuint len);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int faccessat(int dirfd, byte* pathname, int mode, int flags);

    [LibraryImport("libc")]
    public static partial void sync();

    [LibraryImport("libc")]
    public static partial int getpid();

    [LibraryImport("libc")]
    public static partial int getppid();

    [LibraryImport("libc")]
    public static partial uint getuid();

    [LibraryImport("libc")]
    public static partial uint geteuid();

    [LibraryImport("libc")]
    public static partial uint getegid();

    [LibraryImport("libc")]
    public static partial uint getgid();

    [LibraryImport("libc", SetLastError = true)]
    public static partial int isatty(int fd);

    [LibraryImport("libc", SetLastError = true)]
    public static partial nint syscall(nint nr, nint a0, nint a1, nint a2, nint a3, nint a4, nint a5);

    [LibraryImport("libc")]
    public static partial void _exit(int status);
    [LibraryImport("libc", SetLastError = true)]
    public static partial int gettid();

    [LibraryImport("libc", SetLastError = true)]
    public static partial int close_range(uint first, uint last, int flags);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int chdir(byte* path);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int chroot(byte* path);
#pragma warning restore CS1591
}
