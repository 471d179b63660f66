using MicroVm.Linux;
using MicroVm.VmmControl;

namespace MicroVm.Vmm.Fs;

/// <summary>An entry of the root directory: what the guest may reach, and how.</summary>
internal sealed class Export
{
    /// <summary>Makes export number <paramref name="index"/>; takes <paramref name="fd"/> over.</summary>
    public Export(int index, string name, byte[] nameBytes, SafeFd fd, uint type, bool readOnly, FsCache cache)
    {
        Index = index;
        Name = name;
        NameBytes = nameBytes;
        Fd = fd;
        FileType = type;
        ReadOnly = readOnly;
        Cache = cache;
    }

    /// <summary>Its number; never used again for another.</summary>
    public int Index { get; }

    /// <summary>The entry's name.</summary>
    public string Name { get; }

    /// <summary>The name as the guest spells it.</summary>
    public byte[] NameBytes { get; }

    /// <summary>An O_PATH descriptor of the directory or file, owned by the export.</summary>
    public SafeFd Fd { get; }

    /// <summary>S_IFDIR or S_IFREG.</summary>
    public uint FileType { get; }

    /// <summary>Every change is refused.</summary>
    public bool ReadOnly { get; }

    /// <summary>How the guest may cache.</summary>
    public FsCache Cache { get; }

    /// <summary>How long names and attributes may be believed, in seconds.</summary>
    public ulong ValidSeconds => Cache == FsCache.Exclusive ? 86400ul : 1;
}
