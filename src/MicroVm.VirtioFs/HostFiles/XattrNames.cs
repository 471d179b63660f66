using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.VirtioFs.HostFiles;

/// <summary>
/// What an extended attribute of the guest is called on the host. user.*, file capabilities and POSIX ACLs have their own names.
/// trusted.* and other security.* are the host's, which a jailed process may not change; the guest's are kept as
/// user.microvm.trusted.* and user.microvm.security.*, names that the guest itself has no other way to.
/// </summary>
internal static class XattrNames
{
    /// <summary>Room for a name with its NUL.</summary>
    public const int MaxLength = Libc.XATTR_NAME_MAX + 1;

    private static ReadOnlySpan<byte> Prefix => "user.microvm."u8;

    private static ReadOnlySpan<byte> Trusted => "trusted."u8;

    private static ReadOnlySpan<byte> Security => "security."u8;

    /// <summary>It is one of the two attributes that hold a POSIX ACL.</summary>
    public static bool IsAcl(ReadOnlySpan<byte> name) =>
        name.SequenceEqual("system.posix_acl_access"u8) || name.SequenceEqual("system.posix_acl_default"u8);

    /// <summary>The attribute has a name of its own on the host, which only regular files and directories can have.</summary>
    public static bool IsMapped(ReadOnlySpan<byte> name) =>
        name.StartsWith(Trusted) || (name.StartsWith(Security) && !name.SequenceEqual("security.capability"u8));

    /// <summary>What overlayfs remembers of where a file was copied from, which it can do without.</summary>
    public static bool IsHint(ReadOnlySpan<byte> name) => name.SequenceEqual("trusted.overlay.origin"u8);

    /// <summary>Writes the host's name.</summary>
    /// <param name="name">The guest's, without a NUL.</param>
    /// <param name="host">Room for <see cref="MaxLength"/> bytes.</param>
    /// <returns>0, or a negative errno; -ENODATA: a name of the host's for a mapped attribute, which no guest has.</returns>
    // Safe: the length with prefix and NUL is at most MaxLength, for which callers have room.
    public static unsafe int ToHost(ReadOnlySpan<byte> name, byte* host)
    {
        bool mapped = IsMapped(name);
        int length = name.Length + (mapped ? Prefix.Length : 0);
        if (name.IsEmpty || length > Libc.XATTR_NAME_MAX)
        {
            return -(int)Errno.ERANGE;
        }

        if (name.StartsWith(Prefix))
        {
            return -(int)Errno.ENODATA;
        }

        if (!mapped && !name.StartsWith("user."u8) && !name.SequenceEqual("security.capability"u8) && !IsAcl(name))
        {
            return -(int)Errno.EOPNOTSUPP;
        }

        Span<byte> room = new(host, MaxLength);
        Prefix.CopyTo(room);
        name.CopyTo(room[(mapped ? Prefix.Length : 0)..]);
        room[length] = 0;
        return 0;
    }

    /// <summary>Turns a list of the host's names, each ended by a NUL, into the guest's, in place.</summary>
    /// <param name="names">The list.</param>
    /// <param name="withTrusted">The caller may see trusted.*.</param>
    /// <returns>Length of the guest's list.</returns>
    public static int ToGuest(Span<byte> names, bool withTrusted)
    {
        int kept = 0;
        for (int at = 0; at < names.Length;)
        {
            int length = names[at..].IndexOf((byte)0) + 1;
            if (length == 0)
            {
                break;
            }

            Span<byte> name = names.Slice(at, length);
            at += length;
            if (name.StartsWith(Prefix))
            {
                name = name[Prefix.Length..];
                if (!IsMapped(name[..^1]) || (name.StartsWith(Trusted) && !withTrusted))
                {
                    continue;
                }
            }
            else if (!name.StartsWith("user."u8) && !name[..^1].SequenceEqual("security.capability"u8) && !IsAcl(name[..^1]))
            {
                continue;
            }

            name.CopyTo(names[kept..]);
            kept += name.Length;
        }

        return kept;
    }
}
