using MicroVm.Linux;

namespace MicroVm.VirtioFs.Exports;

/// <summary>An entry of the root directory: what the guest may reach, and how.</summary>
internal sealed class Export
{
    /// <summary>Makes export number <paramref name="index"/>; takes <paramref name="fd"/> over.</summary>
    public Export(int index, string name, byte[] nameBytes, SafeFd fd, uint type, ExportRules rules, int device, bool sharesSockets)
    {
        Index = index;
        Name = name;
        NameBytes = nameBytes;
        Fd = fd;
        FileType = type;
        Rules = rules;
        Device = device;
        SharesSockets = sharesSockets;
    }

    /// <summary>Its number; never used again for another.</summary>
    public int Index { get; }

    /// <summary>The entry's name.</summary>
    public string Name { get; }

    /// <summary>The name as the guest spells it.</summary>
    public byte[] NameBytes { get; }

    /// <summary>An O_PATH descriptor of the directory or file, owned by the export.</summary>
    public SafeFd Fd { get; }

    /// <summary>S_IFDIR, S_IFREG or S_IFIFO.</summary>
    public uint FileType { get; }

    /// <summary>What the guest may do below it.</summary>
    public ExportRules Rules { get; }

    /// <summary>Number of its file system's folder in <see cref="ExportTable"/>.</summary>
    public int Device { get; }

    /// <summary>The host listens in place of sockets that the guest makes below it, and FIFOs are the host's.</summary>
    public bool SharesSockets { get; }
}
