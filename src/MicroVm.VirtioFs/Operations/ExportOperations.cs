using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Exports;
using MicroVm.VirtioFs.HostFiles;
using MicroVm.VirtioFs.Inodes;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;
using static MicroVm.VirtioFs.Protocol.FuseResult;

namespace MicroVm.VirtioFs.Operations;

/// <summary>Exports: looked up by the guest in the synthetic directories, removed by the host.</summary>
internal sealed class ExportOperations(FsContext fs, EntryLookup entries)
{
    private const int WaitForRequestsMilliseconds = 5000;

    /// <summary>Removes an export and closes every descriptor below it that no other export leads to.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="found">There was one.</param>
    /// <returns>False when a request that uses it went on for seconds; its descriptors are closed when that ends.</returns>
    public bool Remove(string name, out bool found)
    {
        Export? export = fs.Exports.Remove(name);
        found = export is not null;
        if (export is null)
        {
            return true;
        }

        export.Fd.Dispose();
        fs.Inodes.Names.RemoveExport(export.Index, FindRootOf);
        fs.Locks.CloseUnreachable(fs.Inodes);
        fs.Window?.UnmapWhere(node => !fs.Inodes.Names.IsReachable(node));
        bool inodes = fs.Inodes.CloseUnreachable(WaitForRequestsMilliseconds);
        return fs.Handles.CloseUnreachable(WaitForRequestsMilliseconds) && inodes;
    }

    /// <summary>LOOKUP in a synthetic directory.</summary>
    public int Lookup(FuseRequest r, ReadOnlySpan<byte> name)
    {
        fuse_entry_out entry = default;
        if (FuseNames.IsDot(name) || FuseNames.IsDotDot(name))
        {
            entry.nodeid = r.NodeId;
            SyntheticDirectories.Attributes(out entry.attr);
            return r.Reply(entry);
        }

        int device = r.NodeId == Fuse.FUSE_ROOT_ID ? fs.Exports.FindDevice(name) : -1;
        if (device >= 0)
        {
            return r.Reply(fs.Synthetic.DeviceEntry(device));
        }

        int error = FuseNames.CheckComponent(name);
        if (error == 0)
        {
            error = fs.Exports.Find(name) is { } export && SyntheticDirectories.IsIn(export, r.NodeId) ? LookupRoot(export, out entry) : Fail(Errno.ENOENT);
        }

        return error != 0 ? error : entries.Reply(r, entry);
    }

    // Safe: the empty name outlives the inode that refers to it, which is a local as well.
    private unsafe int LookupRoot(Export export, out fuse_entry_out entry)
    {
        entry = default;
        if (!fs.Inodes.TryTake())
        {
            return Fail(Errno.ENFILE);
        }

        int fd = fs.Exports.Duplicate(export, out Errno errno);
        if (fd < 0)
        {
            fs.Budget.Give();
            return Fail(errno);
        }

        byte none = 0;
        FreshInode fresh = new() { Fd = fd, Export = export.Index, Parent = InodeEntry.None, Name = &none };
        fresh.Key = new InodeKey(0, 0, InodeKey.RightsOf(export.Rules.Index, false, fs.Session.HasSubmounts ? export.Device : 0), 0);
        int error = entries.Adopt(ref fresh, export.Rules, out ulong node);
        if (error != 0)
        {
            return error;
        }

        if (fs.Exports[export.Index] is null)
        {
            // Removed meanwhile, after which nothing would close the descriptor before the guest forgets the inode.
            fs.Inodes.Forget(node, 1);
            fs.Inodes.Names.RemoveExport(export.Index, FindRootOf);
            return Fail(Errno.ENOENT);
        }

        // Exports come and go, and a name may come back for another tree: it is looked up each time.
        entries.Fill(node, fresh.Key, fresh.Stat, out entry);
        entry.entry_valid = 0;
        return 0;
    }

    /// <summary>The number of an export whose root is an inode; <see cref="InodeEntry.None"/> when there is none.</summary>
    private int FindRootOf(InodeKey key)
    {
        for (int i = 0; i < fs.Exports.HighWater; i++)
        {
            if (fs.Exports[i] is { } export && export.Rules.Index == key.Rules && (!fs.Session.HasSubmounts || export.Device == key.Home))
            {
                int fd = fs.Exports.Duplicate(export, out _);
                bool found = fd >= 0 && HostInode.Stat(fd, HostInode.StatMask, out Libc.statx_t stat) == 0
                    && stat.stx_ino == key.Number && InodeKey.DeviceOf(stat) == key.Device;
                _ = fd < 0 ? 0 : Libc.close(fd);
                if (found)
                {
                    return i;
                }
            }
        }

        return InodeEntry.None;
    }
}
