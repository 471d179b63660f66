using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;

namespace MicroVm.VirtioFs.Operations;

/// <summary>Writes the records of READDIR (struct fuse_dirent) and READDIRPLUS (struct fuse_direntplus).</summary>
internal static class DirentWriter
{
    /// <summary>A record's length with its padding.</summary>
    // Safe: the size of a struct is asked for, nothing is followed.
    public static unsafe ulong LengthOf(int nameLength, bool plus) =>
        ((ulong)(sizeof(fuse_dirent) + (plus ? sizeof(fuse_entry_out) : 0) + nameLength) + 7) & ~7ul;

    /// <summary>Writes a record, for which there is room.</summary>
    /// <param name="r">The request.</param>
    /// <param name="at">Where in the answer's payload.</param>
    /// <param name="plus">It is READDIRPLUS.</param>
    /// <param name="entry">What READDIRPLUS says of the inode; its node id is 0 where it gives the name alone.</param>
    /// <param name="dirent">The rest.</param>
    /// <param name="name">The name, as long as <paramref name="dirent"/> says.</param>
    // Safe: the name has the length that the record says; FuseRequest.Write checks the room.
    public static unsafe void Write(FuseRequest r, ulong at, bool plus, in fuse_entry_out entry, in fuse_dirent dirent, byte* name)
    {
        int length = (int)dirent.namelen;
        ulong end = at + LengthOf(length, plus);
        if (plus)
        {
            _ = r.Write(at, entry);
            at += (ulong)sizeof(fuse_entry_out);
        }

        _ = r.Write(at, dirent);
        at += (ulong)sizeof(fuse_dirent);
        _ = r.Write(at, name, length);
        at += (ulong)length;
        ulong padding = 0;
        _ = r.Write(at, (byte*)&padding, (int)(end - at));
    }
}
