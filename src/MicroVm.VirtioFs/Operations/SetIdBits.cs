using MicroVm.Linux.Native;
using MicroVm.VirtioFs.HostFiles;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;

namespace MicroVm.VirtioFs.Operations;

/// <summary>Set-id bits: what becomes of them when a file's contents change, and which a new file may have.</summary>
/// <remarks>
/// The host's kernel clears them unless the writer has CAP_FSETID of the initial user namespace, which a jailed process never
/// has. The guest's kernel knows who writes and says when they are to be cleared; otherwise they are restored. Between the two steps the
/// bits are cleared, never the other way round.
/// </remarks>
internal sealed class SetIdBits(FsContext fs)
{
    private const uint Bits = Libc.S_ISUID | Libc.S_ISGID;

    /// <summary>To be called before the contents of a file change.</summary>
    /// <param name="r">The request.</param>
    /// <param name="fd">The file, also by an O_PATH descriptor.</param>
    /// <param name="kill">The guest's kernel wants the bits cleared: its caller has no CAP_FSETID.</param>
    /// <returns>What <see cref="AfterChange"/> needs.</returns>
    public SetIdState BeforeChange(FuseRequest r, int fd, bool kill)
    {
        kill |= fs.StripsSetId;
        if (DeviceMark.Stat(fd, Libc.STATX_TYPE | Libc.STATX_MODE | Libc.STATX_GID, out Libc.statx_t stat) != 0
            || (stat.stx_mode & Bits) == 0 || (stat.stx_mode & Libc.S_IFMT) != Libc.S_IFREG)
        {
            return default;
        }

        // Without execution by the group the bit is no set-group-id: a member leaves it there.
        uint mode = stat.stx_mode;
        bool keepsGroup = (mode & Libc.S_IXGRP) == 0 && r.Header.gid == stat.stx_gid;
        r.Credentials.ClearSetIdBits(kill);
        return new SetIdState { Before = mode, After = !kill ? mode : mode & ~(keepsGroup ? Libc.S_ISUID : Bits) };
    }

    /// <summary>
    /// To be called after the change, with a descriptor that is open for I/O: puts the bits back that are to stay, and takes
    /// off what the host left because this process is in the file's group.
    /// </summary>
    public static void AfterChange(FuseRequest r, int fd, in SetIdState state)
    {
        if (state.Before == 0)
        {
            return;
        }

        r.Credentials.ClearSetIdBits(false);
        if (DeviceMark.Stat(fd, Libc.STATX_MODE, out Libc.statx_t now) == 0
            && now.stx_mode != state.After
            && ((now.stx_mode ^ state.Before) & ~Bits) == 0)
        {
            _ = Libc.fchmod(fd, state.After & 0xFFF);
        }
    }

    /// <summary>
    /// Gives a new file the set-group-id bit that the guest's kernel left in its mode: it knows the maker's other groups and
    /// capabilities, which the host does not.
    /// </summary>
    public void AfterCreate(int fd, in fuse_create_in create)
    {
        if (!fs.StripsSetId && (create.mode & Libc.S_ISGID) != 0 && fs.Session.GuestStripsSetGid
            && DeviceMark.Stat(fd, Libc.STATX_MODE, out Libc.statx_t stat) == 0 && (stat.stx_mode & Libc.S_ISGID) == 0)
        {
            _ = Libc.fchmod(fd, (stat.stx_mode | Libc.S_ISGID) & 0xFFF);
        }
    }

    /// <summary>The mode that a file may have here.</summary>
    /// <param name="mode">What the guest asks for.</param>
    /// <param name="type">S_IF*: set-group-id of a directory gives its files a group, and nobody a right.</param>
    public uint AllowedMode(uint mode, uint type) =>
        fs.StripsSetId && type == Libc.S_IFREG ? mode & ~(Libc.S_ISUID | Libc.S_ISGID) : mode;
}
