using MicroVm.Linux;
using MicroVm.Vmm.Fs.Dax;
using MicroVm.Vmm.Fs.Protocol;

namespace MicroVm.Vmm.Fs;

/// <content>INIT: which protocol is spoken.</content>
internal sealed unsafe partial class FuseServer
{
    /// <summary>Largest READ and WRITE in guest pages: 1 MiB.</summary>
    private const ushort MaxPages = 256;

    private const uint MaxWrite = MaxPages * 4096;

    /// <summary>The oldest protocol that is spoken: Linux 5.4's, the first with virtio-fs.</summary>
    private const uint OldestMinor = 31;

    /// <summary>The newest protocol whose structs are known: Linux 6.6's.</summary>
    private const uint NewestMinor = 39;

    // How many readahead and asynchronous requests the kernel queues: the request queue holds more.
    private const ushort MaxBackground = 128;
    private const ushort CongestionThreshold = 96;

    /// <summary>
    /// DONT_MASK: the umask comes with the request, for the host applies none below a default ACL. HANDLE_KILLPRIV_V2:
    /// the host clears set-id bits, which saves the guest a request for each write. POSIX_ACL: the guest's kernel enforces the
    /// host's ACLs, which the host has no reason to do to this process. Not asked for: WRITEBACK_CACHE (data
    /// of a killed VM would be lost, and the guest's clock would set times), EXPORT_SUPPORT (node ids do not outlive the guest's references, so a file
    /// handle that is not in its cache is stale anyway).
    /// </summary>
    private const uint WantedFlags =
        Fuse.FUSE_ASYNC_READ | Fuse.FUSE_ATOMIC_O_TRUNC | Fuse.FUSE_BIG_WRITES | Fuse.FUSE_DONT_MASK
        | Fuse.FUSE_AUTO_INVAL_DATA | Fuse.FUSE_DO_READDIRPLUS | Fuse.FUSE_READDIRPLUS_AUTO | Fuse.FUSE_ASYNC_DIO
        | Fuse.FUSE_PARALLEL_DIROPS | Fuse.FUSE_MAX_PAGES | Fuse.FUSE_CACHE_SYMLINKS | Fuse.FUSE_HANDLE_KILLPRIV_V2
        | Fuse.FUSE_SUBMOUNTS | Fuse.FUSE_INIT_EXT | Fuse.FUSE_POSIX_LOCKS | Fuse.FUSE_FLOCK_LOCKS
        | Fuse.FUSE_POSIX_ACL | Fuse.FUSE_SETXATTR_EXT;

    /// <summary>
    /// Bit 62 of the flags, of this project's guest kernel (kernel-config/patches): files that are open with FOPEN_NOFLUSH
    /// keep their locks in the guest.
    /// </summary>
    private const uint NoFlushLocalLocks = 1u << 30;

    /// <summary>
    /// Bit 60, of the same kernel: FUSE_ATTR_DAX means that the file is DAX from the moment when it is first mapped shared. Without
    /// it, all that is read of a file would go by way of the window, which is slower for small files.
    /// </summary>
    private const uint DaxAtMmap = 1u << 28;

    private const uint InodeDax = (uint)(Fuse.FUSE_HAS_INODE_DAX >> 32);

    private volatile bool _locksStayInGuest;
    private volatile bool _setXattrIsLong;

    private int Initialise(FuseRequest r)
    {
        const int OldRequestLength = 16;
        fuse_init_in init = default;
        if (r.Read(0, (byte*)&init, sizeof(fuse_init_in)) < OldRequestLength)
        {
            return Fail(Errno.EINVAL);
        }

        fuse_init_out reply = new() { major = Fuse.FUSE_KERNEL_VERSION, minor = NewestMinor };
        if (init.major > Fuse.FUSE_KERNEL_VERSION)
        {
            // The kernel asks again with this major version.
            return r.Reply((byte*)&reply, Fuse.FUSE_COMPAT_INIT_OUT_SIZE);
        }

        if (init.major < Fuse.FUSE_KERNEL_VERSION || init.minor < OldestMinor)
        {
            return Fail(Errno.EPROTO);
        }

        if (r.Room < (ulong)sizeof(fuse_init_out))
        {
            return Fail(Errno.EINVAL);
        }

        // A second INIT is a guest that mounted again without an orderly end.
        EndSession();
        reply.minor = Math.Min(init.minor, NewestMinor);
        reply.max_readahead = init.max_readahead;
        reply.flags = WantedFlags & init.flags;
        bool extended = (init.flags & Fuse.FUSE_INIT_EXT) != 0;

        // Other kernels forget in submounts that there are ACLs, and would believe the mode of a file that has one.
        _hasSubmounts = (reply.flags & Fuse.FUSE_SUBMOUNTS) != 0 && extended && (init.flags2 & HostEventsFlag) != 0;
        reply.flags2 = extended ? init.flags2 & (NoFlushLocalLocks | (Events.Fd is null ? 0 : HostEventsFlag)) : 0;
        reply.flags2 |= extended ? init.flags2 & HostFifosFlag : 0;
        _opensFifos = (reply.flags2 & HostFifosFlag) != 0;
        _locksStayInGuest = (reply.flags2 & NoFlushLocalLocks) != 0;
        _mapsFiles = _window is not null && extended && (init.flags & Fuse.FUSE_MAP_ALIGNMENT) != 0
            && (init.flags2 & (InodeDax | DaxAtMmap)) == (InodeDax | DaxAtMmap);
        if (_mapsFiles)
        {
            reply.flags |= Fuse.FUSE_MAP_ALIGNMENT;
            reply.flags2 |= InodeDax | DaxAtMmap;
            reply.map_alignment = DaxWindow.SlotShift;
        }

        _setXattrIsLong = (reply.flags & Fuse.FUSE_SETXATTR_EXT) != 0;
        _guestStripsSetGid = reply.minor >= StrippingMinor;
        reply.max_background = MaxBackground;
        reply.congestion_threshold = CongestionThreshold;
        reply.max_write = MaxWrite;
        reply.max_pages = MaxPages;
        reply.time_gran = 1;
        _initialised = true;
        return r.Reply(reply);
    }
}
