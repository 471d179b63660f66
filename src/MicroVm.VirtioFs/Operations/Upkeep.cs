namespace MicroVm.VirtioFs.Operations;

/// <summary>What a server does between requests, by a timer: closes files that are not in use and looks after files that are mapped.</summary>
internal sealed class Upkeep(FsContext fs, MappingOperations mappings)
{
    /// <summary>
    /// Closes files' descriptors that were not used since the last call, so that the host's removed files are freed.
    /// </summary>
    /// <returns>There are some left for the next call; otherwise <see cref="OnIdleFiles"/> tells of the next.</returns>
    public bool CloseIdleFiles()
    {
        bool left = fs.Inodes.CloseIdleFiles();
        if (fs.Window is { MappedCount: > 0 })
        {
            fs.Window.UnmapRemoved(node => !fs.Inodes.IsOpen(node));
        }

        return left;
    }

    /// <summary>Has <paramref name="notify"/> called when files have descriptors that <see cref="CloseIdleFiles"/> may close.</summary>
    public void OnIdleFiles(Action? notify)
    {
        mappings.OnMapped(notify);
        fs.Inodes.OnIdleFiles(notify);
    }

    /// <summary>Inodes that have a descriptor although the guest has no handle on them.</summary>
    public int IdleCount => fs.Inodes.IdleCount;

    /// <summary>Slots of the window in which a file is mapped.</summary>
    public int MappingCount => fs.Window?.MappedCount ?? 0;

    /// <summary>Replaces pages that mapped files have lost.</summary>
    /// <returns>There are files to be looked after.</returns>
    public bool LookAfterMappings()
    {
        fs.Window?.ReplaceLost();
        return MappingCount > 0;
    }
}
