using static MicroVm.Linux.Native.Libc;

namespace MicroVm.Oci.Mounts;

/// <summary>The option words of a mount, resolved as runc does; unknown words are the file system's own.</summary>
public sealed class MountOptions
{
    private static readonly Dictionary<string, (ulong Flag, bool Clear)> Words = new(StringComparer.Ordinal)
    {
        ["acl"] = (MS_POSIXACL, false),
        ["async"] = (MS_SYNCHRONOUS, true),
        ["atime"] = (MS_NOATIME, true),
        ["bind"] = (MS_BIND, false),
        ["defaults"] = (0, false),
        ["dev"] = (MS_NODEV, true),
        ["diratime"] = (MS_NODIRATIME, true),
        ["dirsync"] = (MS_DIRSYNC, false),
        ["exec"] = (MS_NOEXEC, true),
        ["iversion"] = (MS_I_VERSION, false),
        ["lazytime"] = (MS_LAZYTIME, false),
        ["loud"] = (MS_SILENT, true),
        ["mand"] = (MS_MANDLOCK, false),
        ["noacl"] = (MS_POSIXACL, true),
        ["noatime"] = (MS_NOATIME, false),
        ["nodev"] = (MS_NODEV, false),
        ["nodiratime"] = (MS_NODIRATIME, false),
        ["noexec"] = (MS_NOEXEC, false),
        ["noiversion"] = (MS_I_VERSION, true),
        ["nolazytime"] = (MS_LAZYTIME, true),
        ["nomand"] = (MS_MANDLOCK, true),
        ["norelatime"] = (MS_RELATIME, true),
        ["nostrictatime"] = (MS_STRICTATIME, true),
        ["nosuid"] = (MS_NOSUID, false),
        ["nosymfollow"] = (MS_NOSYMFOLLOW, false),
        ["rbind"] = (MS_BIND | MS_REC, false),
        ["relatime"] = (MS_RELATIME, false),
        ["remount"] = (MS_REMOUNT, false),
        ["ro"] = (MS_RDONLY, false),
        ["rw"] = (MS_RDONLY, true),
        ["silent"] = (MS_SILENT, false),
        ["strictatime"] = (MS_STRICTATIME, false),
        ["suid"] = (MS_NOSUID, true),
        ["symfollow"] = (MS_NOSYMFOLLOW, true),
        ["sync"] = (MS_SYNCHRONOUS, false),
    };

    private static readonly Dictionary<string, (ulong Attribute, bool Clear)> RecursiveWords = new(StringComparer.Ordinal)
    {
        ["ratime"] = (MOUNT_ATTR_NOATIME, true),
        ["rdev"] = (MOUNT_ATTR_NODEV, true),
        ["rdiratime"] = (MOUNT_ATTR_NODIRATIME, true),
        ["rexec"] = (MOUNT_ATTR_NOEXEC, true),
        ["rnoatime"] = (MOUNT_ATTR_NOATIME, false),
        ["rnodev"] = (MOUNT_ATTR_NODEV, false),
        ["rnodiratime"] = (MOUNT_ATTR_NODIRATIME, false),
        ["rnoexec"] = (MOUNT_ATTR_NOEXEC, false),
        ["rnorelatime"] = (MOUNT_ATTR_RELATIME, true),
        ["rnostrictatime"] = (MOUNT_ATTR_STRICTATIME, true),
        ["rnosuid"] = (MOUNT_ATTR_NOSUID, false),
        ["rnosymfollow"] = (MOUNT_ATTR_NOSYMFOLLOW, false),
        ["rrelatime"] = (MOUNT_ATTR_RELATIME, false),
        ["rro"] = (MOUNT_ATTR_RDONLY, false),
        ["rrw"] = (MOUNT_ATTR_RDONLY, true),
        ["rstrictatime"] = (MOUNT_ATTR_STRICTATIME, false),
        ["rsuid"] = (MOUNT_ATTR_NOSUID, true),
        ["rsymfollow"] = (MOUNT_ATTR_NOSYMFOLLOW, true),
    };

    private static readonly Dictionary<string, ulong> PropagationWords = new(StringComparer.Ordinal)
    {
        ["private"] = MS_PRIVATE,
        ["rprivate"] = MS_PRIVATE | MS_REC,
        ["rshared"] = MS_SHARED | MS_REC,
        ["rslave"] = MS_SLAVE | MS_REC,
        ["runbindable"] = MS_UNBINDABLE | MS_REC,
        ["shared"] = MS_SHARED,
        ["slave"] = MS_SLAVE,
        ["unbindable"] = MS_UNBINDABLE,
    };

    /// <summary>MS_* flags to mount with.</summary>
    public ulong Flags { get; private set; }

    /// <summary>MS_* flags that a word asked to be off.</summary>
    public ulong ClearedFlags { get; private set; }

    /// <summary>MOUNT_ATTR_* to set on the whole tree.</summary>
    public ulong RecursiveSet { get; private set; }

    /// <summary>MOUNT_ATTR_* to clear on the whole tree.</summary>
    public ulong RecursiveClear { get; private set; }

    /// <summary>Propagation changes, in order.</summary>
    public List<ulong> Propagation { get; } = [];

    /// <summary>Options that are the file system's own, comma-separated.</summary>
    public string Data { get; private set; } = "";

    /// <summary>Copy what lies at the destination into the new tmpfs.</summary>
    public bool TmpCopyUp { get; private set; }

    /// <summary>Every word that is not passed on to the file system, sorted.</summary>
    public static IReadOnlyList<string> KnownWords =>
        [.. Words.Keys.Concat(RecursiveWords.Keys).Concat(PropagationWords.Keys).Append("tmpcopyup").Order(StringComparer.Ordinal)];

    /// <summary>The flags of <c>linux.rootfsPropagation</c>; 0 when none is asked for.</summary>
    /// <exception cref="SpecException">The word is unknown.</exception>
    public static ulong RootfsPropagation(string? word) =>
        string.IsNullOrEmpty(word) ? 0
        : PropagationWords.TryGetValue(word, out ulong flags) ? flags
        : throw new SpecException($"rootfsPropagation={word} is not supported");

    /// <summary>Resolves the words of a mount. <paramref name="where"/> names the mount in errors.</summary>
    /// <exception cref="SpecException">A word asks for something that is not supported.</exception>
    public static MountOptions Resolve(IReadOnlyList<string>? words, string where)
    {
        MountOptions result = new();
        List<string> data = [];
        foreach (string word in words ?? [])
        {
            if (!result.TryApply(word, where))
            {
                data.Add(word);
            }
        }

        result.Data = string.Join(',', data);
        return result;
    }

    private bool TryApply(string? word, string where)
    {
        switch (word)
        {
            case null or "":
                return true;
            case "tmpcopyup":
                TmpCopyUp = true;
                return true;
            case "idmap" or "ridmap":
                throw SpecException.Unsupported($"{where}: mount option {word}", SpecValidator.IdMapReason);
        }

        if (Words.TryGetValue(word, out (ulong Flag, bool Clear) option))
        {
            (Flags, ClearedFlags) = option.Clear
                ? (Flags & ~option.Flag, ClearedFlags | option.Flag)
                : (Flags | option.Flag, ClearedFlags & ~option.Flag);
            return true;
        }

        if (PropagationWords.TryGetValue(word, out ulong propagation))
        {
            Propagation.Add(propagation);
            return true;
        }

        if (RecursiveWords.TryGetValue(word, out (ulong Attribute, bool Clear) recursive))
        {
            ApplyRecursive(recursive.Attribute, recursive.Clear);
            return true;
        }

        return false;
    }

    // The access-time attributes are a field of several bits: mount_setattr(2) wants it cleared whole before it is set.
    private void ApplyRecursive(ulong attribute, bool clear)
    {
        bool accessTime = attribute == MOUNT_ATTR_RELATIME || (attribute & MOUNT_ATTR__ATIME) != 0;
        if (accessTime)
        {
            RecursiveClear |= MOUNT_ATTR__ATIME;
            RecursiveSet = (RecursiveSet & ~MOUNT_ATTR__ATIME) | (clear ? 0 : attribute);
            return;
        }

        RecursiveSet = clear ? RecursiveSet & ~attribute : RecursiveSet | attribute;
        RecursiveClear = clear ? RecursiveClear | attribute : RecursiveClear & ~attribute;
    }
}
