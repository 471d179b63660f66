using MicroVm.Linux.Native;
using MicroVm.Vmm.Fs.Protocol;

namespace MicroVm.Vmm.Fs;

/// <content>Set-id bits: what becomes of them when a file's contents change.</content>
/// <remarks>
/// The host's kernel clears them unless the writer has CAP_FSETID of the initial user namespace, which a jailed process never
/// has. The guest's kernel knows who writes and says when they are to go; else they are put back. Between the two steps the
/// bits are gone, never the other way round.
/// </remarks>
internal sealed unsafe partial class FuseServer
{
    private const uint SetIdBits = Libc.S_ISUID | Libc.S_ISGID;

    /// <summary>Kernels from Linux 6.1 on take the set-group-id bit out of a new file's mode when its maker may not set it.</summary>
    private const uint StrippingMinor = 37;

    private volatile bool _guestStripsSetGid;

    /// <summary>To be called before the contents of a file change.</summary>
    /// <param name="r">The request.</param>
    /// <param name="fd">The file, also by an O_PATH descriptor.</param>
    /// <param name="kill">The guest's kernel wants the bits cleared: its caller has no CAP_FSETID.</param>
    /// <returns>What <see cref="AfterChange"/> needs.</returns>
    private SetIdState BeforeChange(FuseRequest r, int fd, bool kill)
    {
        kill |= _stripSetId;
        if (StatDescriptor(fd, Libc.STATX_TYPE | Libc.STATX_MODE | Libc.STATX_GID, out Libc.statx_t stat) != 0
            || (stat.stx_mode & SetIdBits) == 0 || (stat.stx_mode & Libc.S_IFMT) != Libc.S_IFREG)
        {
            return default;
        }

        // Without execution by the group the bit is no set-group-id: a member leaves it there.
        uint mode = stat.stx_mode;
        bool keepsGroup = (mode & Libc.S_IXGRP) == 0 && r.Header.gid == stat.stx_gid;
        r.Credentials.ClearSetIdBits(kill);
        return new SetIdState { Before = mode, After = !kill ? mode : mode & ~(keepsGroup ? Libc.S_ISUID : SetIdBits) };
    }

    /// <summary>
    /// To be called after the change, with a descriptor that is open for I/O: puts the bits back that are to stay, and takes
    /// off what the host left because this process is in the file's group.
    /// </summary>
    private static void AfterChange(FuseRequest r, int fd, in SetIdState state)
    {
        if (state.Before == 0)
        {
            return;
        }

        r.Credentials.ClearSetIdBits(false);
        if (StatDescriptor(fd, Libc.STATX_MODE, out Libc.statx_t now) == 0
            && now.stx_mode != state.After
            && ((now.stx_mode ^ state.Before) & ~SetIdBits) == 0)
        {
            _ = Libc.fchmod(fd, state.After & 0xFFF);
        }
    }

    /// <summary>
    /// Gives a new file the set-group-id bit that the guest's kernel left in its mode: it knows the maker's other groups and
    /// capabilities, which the host does not.
    /// </summary>
    private void AfterCreate(int fd, in fuse_create_in create)
    {
        if (!_stripSetId && (create.mode & Libc.S_ISGID) != 0 && _guestStripsSetGid
            && StatDescriptor(fd, Libc.STATX_MODE, out Libc.statx_t stat) == 0 && (stat.stx_mode & Libc.S_ISGID) == 0)
        {
            _ = Libc.fchmod(fd, (stat.stx_mode | Libc.S_ISGID) & 0xFFF);
        }
    }

    /// <summary>A file's mode before a change of its contents, and what it is to be then; zero: nothing is to be done.</summary>
    private readonly struct SetIdState
    {
        public uint Before { get; init; }

        public uint After { get; init; }
    }
}
