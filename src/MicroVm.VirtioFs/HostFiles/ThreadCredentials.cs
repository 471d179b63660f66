using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.VirtioFs.HostFiles;

/// <summary>
/// Who the calling thread is to the host's kernel: credentials, umask and working directory are changed for the thread
/// alone, by raw system calls, since libc's wrappers change all threads of the process.
/// </summary>
/// <remarks>
/// <para>What the process needs, all in one place. With CAP_SETUID and CAP_SETGID, as root or as a user whose capabilities
/// do not change with its ids (SECBIT_NO_SETUID_FIXUP), new files belong to the guest's user; CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH make the guest's kernel the judge of
/// permissions; CAP_CHOWN and CAP_FOWNER serve chown, chmod and utimens; CAP_FSETID keeps set-id bits where the guest's
/// caller may keep them; CAP_SETFCAP serves security.capability; no CAP_MKNOD
/// (a whiteout needs none). Without these nothing is switched and files belong to the process's own user.</para>
/// <para>/proc must be mounted when the device is made, not later: only the descriptor of /proc/self/fd is used.
/// Made and used on one thread.</para>
/// </remarks>
internal sealed class ThreadCredentials
{
    private const uint NoUmask = uint.MaxValue;
    private readonly bool _canSwitch;
    private readonly uint _user = Libc.geteuid();
    private readonly uint _group = Libc.getegid();
    private readonly uint _effective;
    private readonly uint _effectiveHigh;
    private readonly uint _permitted;
    private readonly uint _permittedHigh;
    private bool _fsetidDropped;
    private uint _umask = NoUmask;

    /// <summary>Takes the calling thread out of the process's shared working directory and umask, and drops its groups.</summary>
    /// <param name="procSelfFd">/proc/self/fd: becomes the thread's working directory, which extended attributes need.</param>
    /// <exception cref="LinuxException">The kernel refuses, for example under a seccomp filter.</exception>
    // Safe: version 3 of the header stands for two structs, which there are.
    public unsafe ThreadCredentials(SafeFd procSelfFd)
    {
        Check.Result(Libc.unshare(Libc.CLONE_FS), "unshare", "CLONE_FS");
        Check.Result(Libc.fchdir(procSelfFd.Value), "fchdir", "/proc/self/fd");
        SetUmask(0);
        Libc.__user_cap_data_struct* caps = stackalloc Libc.__user_cap_data_struct[2];
        Libc.__user_cap_header_struct header = new() { version = Libc._LINUX_CAPABILITY_VERSION_3 };
        Check.Result(Libc.capget(&header, caps), "capget");
        (_effective, _permitted) = (caps[0].effective, caps[0].permitted);
        (_effectiveHigh, _permittedHigh) = (caps[1].effective, caps[1].permitted);
        const uint SetIds = (1u << Libc.CAP_SETUID) | (1u << Libc.CAP_SETGID);
        bool capabilitiesStay = (Libc.prctl(Libc.PR_GET_SECUREBITS, 0, 0, 0, 0) & Libc.SECBIT_NO_SETUID_FIXUP) != 0;
        _canSwitch = (_user == 0 || capabilitiesStay) && (_effective & SetIds) == SetIds;
        if (_canSwitch)
        {
            Check.Result(Libc.thread_setgroups(0, null), "setgroups");
        }
    }

    /// <summary>
    /// Becomes the guest's user for making a file. CAP_DAC_OVERRIDE stays: the guest's kernel has checked permissions,
    /// with groups and capabilities that this side does not know. <see cref="Leave"/> follows when this gives 0.
    /// </summary>
    /// <returns>0, or a negative errno: the id is not mapped here.</returns>
    public int Enter(uint uid, uint gid)
    {
        // -1 would mean "leave it as it is": the file would be this process's user's.
        if (uid == uint.MaxValue || gid == uint.MaxValue)
        {
            return -(int)Errno.EOVERFLOW;
        }

        if (!_canSwitch)
        {
            return 0;
        }

        ClearSetIdBits(false);
        if (gid != _group && SetGroup(gid) != 0)
        {
            return Refusal();
        }

        if (uid != _user && SetUser(uid) != 0)
        {
            int error = Refusal();
            Leave(_user, gid);
            return error;
        }

        if (uid != 0)
        {
            SetEffective(_effective & (1u << Libc.CAP_DAC_OVERRIDE), 0);
        }

        return 0;
    }

    /// <summary>Becomes the process's own user again.</summary>
    public void Leave(uint uid, uint gid)
    {
        if (!_canSwitch)
        {
            return;
        }

        if (uid != _user)
        {
            MustSucceed(SetUser(_user));
        }

        if (uid != 0)
        {
            SetEffective(_effective, _effectiveHigh);
        }

        if (gid != _group)
        {
            MustSucceed(SetGroup(_group));
        }
    }

    /// <summary>Sets the thread's umask, which the kernel applies unless the directory has a default ACL.</summary>
    public void SetUmask(uint mask)
    {
        if (mask != _umask)
        {
            Libc.umask(mask & 0x1FF);
            _umask = mask;
        }
    }

    /// <summary>
    /// Has the kernel clear set-id bits when a file changes, or not: it does for a thread without CAP_FSETID. Who asks for it
    /// takes it back within the same request.
    /// </summary>
    public void ClearSetIdBits(bool clear)
    {
        if (clear != _fsetidDropped)
        {
            _fsetidDropped = clear;
            SetEffective(clear ? _effective & ~(1u << Libc.CAP_FSETID) : _effective, _effectiveHigh);
        }
    }

    // As the kernel answers a user namespace's process whose own id has no place in a file system (may_create of fs/namei.c).
    private static int Refusal() => -(int)(Check.LastErrno is Errno.EINVAL ? Errno.EOVERFLOW : Check.LastErrno);

    private static int SetUser(uint id) => Libc.thread_setresuid(uint.MaxValue, id, uint.MaxValue);

    private static int SetGroup(uint id) => Libc.thread_setresgid(uint.MaxValue, id, uint.MaxValue);

    private static void MustSucceed(int result)
    {
        if (result != 0)
        {
            // Going on would serve the next request as the wrong user.
            Environment.FailFast($"virtio-fs: cannot take its own credentials back: {LinuxException.Text(Check.LastErrno)}");
        }
    }

    // Safe: as for the constructor.
    private unsafe void SetEffective(uint low, uint high)
    {
        Libc.__user_cap_data_struct* caps = stackalloc Libc.__user_cap_data_struct[2];
        caps[0] = new() { effective = low, permitted = _permitted };
        caps[1] = new() { effective = high, permitted = _permittedHigh };
        Libc.__user_cap_header_struct header = new() { version = Libc._LINUX_CAPABILITY_VERSION_3 };
        MustSucceed(Libc.capset(&header, caps));
    }
}
