namespace MicroVm.Shim.Mounts;

/// <summary>Options of an overlay mount whose text fits into the page that mount(2) reads.</summary>
/// <param name="Folder">Working folder to mount from, to which the lower folders are relative; null when they are absolute.</param>
/// <param name="Text">The options.</param>
internal readonly record struct OverlayData(string? Folder, string Text)
{
    private const string Lower = "lowerdir=";

    // A page, less what containerd leaves, too.
    private const int Longest = 4096 - 512;

    /// <summary>Options as they are when they fit; else with lower folders relative to the folder that all of them share.</summary>
    internal static OverlayData Shorten(string data)
    {
        string[] options = data.Split(',');
        int at = Array.FindIndex(options, o => o.StartsWith(Lower, StringComparison.Ordinal));
        if (data.Length < Longest || at < 0)
        {
            return new OverlayData(null, data);
        }

        string[] folders = options[at][Lower.Length..].Split(':');
        string common = Common(folders);

        // A path that begins with a slash would not be relative.
        if (common.Length <= 1 || folders.Any(f => f[common.Length] == '/'))
        {
            return new OverlayData(null, data);
        }

        options[at] = Lower + string.Join(':', folders.Select(f => f[common.Length..]));
        return new OverlayData(common, string.Join(',', options));
    }

    /// <summary>The longest folder, with its slash, that all are below; empty when there is none.</summary>
    private static string Common(string[] folders)
    {
        string common = folders[0][..(folders[0].LastIndexOf('/') + 1)];
        foreach (string folder in folders)
        {
            while (common.Length > 0 && !(folder.StartsWith(common, StringComparison.Ordinal) && folder.Length > common.Length))
            {
                common = common[..(common[..^1].LastIndexOf('/') + 1)];
            }
        }

        return common;
    }
}
