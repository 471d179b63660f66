using MicroVm.Linux;
using MicroVm.VirtioFs.Dax;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;
using static MicroVm.VirtioFs.Protocol.FuseResult;

namespace MicroVm.VirtioFs.Operations;

/// <summary>INIT and DESTROY: which protocol is spoken.</summary>
internal sealed class SessionOperations(FsContext fs)
{
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

    private const uint InodeDax = (uint)(Fuse.FUSE_HAS_INODE_DAX >> 32);

    /// <summary>Kernels from Linux 6.1 on take the set-group-id bit out of a new file's mode when its maker may not set it.</summary>
    private const uint StrippingMinor = 37;

    // Safe: requests and answers are locals; Read copies at most their size.
    public unsafe int Initialise(FuseRequest r)
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
        fs.EndSession();
        reply.minor = Math.Min(init.minor, NewestMinor);
        reply.max_readahead = init.max_readahead;
        reply.flags = WantedFlags & init.flags;
        bool extended = (init.flags & Fuse.FUSE_INIT_EXT) != 0;

        uint flags2 = extended ? init.flags2 : 0;
        reply.flags2 = flags2 & (GuestKernelFlags.NoFlushLocalLocks | GuestKernelFlags.HostFifos | (fs.Events.Fd is null ? 0 : GuestKernelFlags.HostEvents));
        const uint Dax = InodeDax | GuestKernelFlags.DaxAtMmap;
        bool mapsFiles = fs.Window is not null && (init.flags & Fuse.FUSE_MAP_ALIGNMENT) != 0 && (flags2 & Dax) == Dax;
        if (mapsFiles)
        {
            reply.flags |= Fuse.FUSE_MAP_ALIGNMENT;
            reply.flags2 |= Dax;
            reply.map_alignment = DaxWindow.SlotShift;
        }

        reply.max_background = MaxBackground;
        reply.congestion_threshold = CongestionThreshold;
        reply.max_write = FsSession.MaxWrite;
        reply.max_pages = FsSession.MaxPages;
        reply.time_gran = 1;
        fs.Session = new FsSession
        {
            IsOpen = true,

            // Other kernels forget in submounts that there are ACLs, and would believe the mode of a file that has one.
            HasSubmounts = (reply.flags & Fuse.FUSE_SUBMOUNTS) != 0 && (flags2 & GuestKernelFlags.HostEvents) != 0,
            OpensFifos = (reply.flags2 & GuestKernelFlags.HostFifos) != 0,
            LocksStayInGuest = (reply.flags2 & GuestKernelFlags.NoFlushLocalLocks) != 0,
            MapsFiles = mapsFiles,
            SetXattrIsLong = (reply.flags & Fuse.FUSE_SETXATTR_EXT) != 0,
            GuestStripsSetGid = reply.minor >= StrippingMinor,
        };
        return r.Reply(reply);
    }

    public int Destroy()
    {
        fs.EndSession();
        return 0;
    }
}
