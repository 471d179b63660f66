using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Exports;
using MicroVm.VirtioFs.Handles;
using MicroVm.VirtioFs.Inodes;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;
using static MicroVm.VirtioFs.Protocol.FuseResult;

namespace MicroVm.VirtioFs.Operations;

/// <summary>READDIR and READDIRPLUS of the synthetic directories.</summary>
internal sealed class RootListing(FsContext fs)
{
    /// <summary>Lists a synthetic directory: ".", "..", then the exports, whose numbers give the offsets.</summary>
    // Safe: the name is pinned while it is written to the answer.
    public unsafe int Read(FuseRequest r, in fuse_read_in read, bool plus)
    {
        if (!fs.Handles.TryPin(read.fh, r.NodeId, HandleKind.Root, out HandlePin handle))
        {
            return Fail(Errno.EBADF);
        }

        using HandlePin pinned = handle;
        ulong used = 0;
        const ulong FirstExport = 2;
        for (ulong position = read.offset; position < FirstExport + (ulong)fs.Exports.HighWater; position++)
        {
            Export? export = position < FirstExport ? null : fs.Exports[(int)(position - FirstExport)];
            if (position >= FirstExport && (export is null || !SyntheticDirectories.IsIn(export, r.NodeId)))
            {
                continue;
            }

            ReadOnlySpan<byte> name = export is null ? (position == 0 ? "."u8 : ".."u8) : export.NameBytes;
            ulong total = DirentWriter.LengthOf(name.Length, plus);
            if (total > read.size - used)
            {
                return used == 0 ? Fail(Errno.EINVAL) : (int)used;
            }

            // The host's inode number is told by LOOKUP; here any number will do that is not 0.
            fuse_dirent dirent = new()
            {
                ino = InodeNumbers.Root + position,
                off = position + 1,
                namelen = (uint)name.Length,
                type = export is null || export.FileType == Libc.S_IFDIR ? Libc.DT_DIR : Libc.DT_REG,
            };
            fixed (byte* bytes = name)
            {
                DirentWriter.Write(r, used, plus, default, dirent, bytes);
            }

            used += total;
        }

        return (int)used;
    }
}
