using MicroVm.Linux;
using MicroVm.VirtioFs.Exports;
using MicroVm.VirtioFs.Inodes;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;
using MicroVm.VmmControl;
using static MicroVm.VirtioFs.Protocol.FuseResult;

namespace MicroVm.VirtioFs.Operations;

/// <summary>LOOKUP: from names to inodes.</summary>
internal sealed class LookupOperations(FsContext fs, EntryLookup entries, ExportOperations exports)
{
    // Safe: the name lies in the request's own buffer, with its NUL, until the next request.
    public unsafe int Lookup(FuseRequest r)
    {
        int error = r.ReadStrings(0, 1, out byte* name, out int length, out _, out _);
        if (error != 0)
        {
            return error;
        }

        ReadOnlySpan<byte> text = new(name, length);
        if (fs.Synthetic.Is(r.NodeId))
        {
            return exports.Lookup(r, text);
        }

        if (!fs.Inodes.TryPin(r.NodeId, out InodePin parent))
        {
            return Fail(Errno.ESTALE);
        }

        using InodePin pinned = parent;
        ExportRules rules = fs.Exports.RulesOf(parent.Key);
        fuse_entry_out entry;
        if (FuseNames.IsDot(text) || (FuseNames.IsDotDot(text) && parent.IsExportRoot))
        {
            error = entries.LookupSelf(parent, out entry);
        }
        else
        {
            // Other parents are not to be asked for, since EXPORT_SUPPORT is not offered: ".." is no valid name.
            error = FuseNames.CheckComponent(text);
            if (error != 0)
            {
                return error;
            }

            error = entries.LookupChild(parent, rules, name, out entry);
            if (error == Fail(Errno.ENOENT) && rules.Cache == FsCache.Exclusive)
            {
                // Node id 0: the kernel may remember that the name does not exist.
                entry = new fuse_entry_out { entry_valid = ExportRules.ValidSeconds };
                error = 0;
            }
        }

        return error != 0 ? error : entries.Reply(r, entry);
    }
}
