using System.Runtime.InteropServices;
using MicroVm.Linux.Native;

namespace MicroVm.VirtioFs.HostFiles;

/// <summary>
/// A device node of the guest, kept on the host as an empty regular file that is no device to the host: without permission
/// bits but the sticky one, and with an extended attribute that says what it is. The two first are seen in what statx(2)
/// tells anyway, so that only such files are asked for the attribute.
/// </summary>
/// <remarks>Served on a thread whose working directory is /proc/self/fd, as extended attributes are.</remarks>
internal static class DeviceMark
{
    /// <summary>Mode of the host's file: S_ISVTX alone, which nobody gives a file.</summary>
    internal const uint HostMode = 0x200;

    private const byte Version = 1;
    private const uint MaxMajor = 0xFFF, MaxMinor = 0xFFFFF;

    /// <summary>Name of the attribute; the prefix is closed to the guest.</summary>
    private static ReadOnlySpan<byte> AttributeName => "user.microvm.device\0"u8;

    /// <summary>Name of the attribute of a folder in which there is or was a marked file: only there, a listing asks for each file's mark.</summary>
    private static ReadOnlySpan<byte> FolderAttributeName => "user.microvm.devices\0"u8;

    /// <summary>Prefix of the attributes that are this server's own.</summary>
    internal static ReadOnlySpan<byte> ReservedPrefix => "user.microvm."u8;

    /// <summary>Whether a file may be a marked one, by its attributes alone; they must hold type, mode and size.</summary>
    internal static bool IsLikely(in Libc.statx_t stat) =>
        (stat.stx_mode & (Libc.S_IFMT | 0xFFFu)) == (Libc.S_IFREG | HostMode) && stat.stx_size == 0;

    /// <summary>Attributes of the file behind a descriptor, O_PATH or not, as the guest sees them: a marked file is a device.</summary>
    /// <param name="fd">The file.</param>
    /// <param name="mask">What is asked for (STATX_*); without type, mode and size a mark is not seen.</param>
    /// <param name="stat">The attributes.</param>
    /// <returns>0, or a negative errno.</returns>
    internal static int Stat(int fd, uint mask, out Libc.statx_t stat)
    {
        int error = HostInode.Stat(fd, mask, out stat);
        if (error == 0)
        {
            Apply(fd, ref stat);
        }

        return error;
    }

    /// <summary>Puts the device's type, mode and number into the attributes of a marked file; leaves those of any other file.</summary>
    internal static void Apply(int fd, ref Libc.statx_t stat)
    {
        if (!IsLikely(stat) || !TryRead(fd, out Record record))
        {
            return;
        }

        stat.stx_mode = (ushort)(record.Type | record.Mode);
        (stat.stx_rdev_major, stat.stx_rdev_minor) = (record.Major, record.Minor);
    }

    /// <summary>Marks a file.</summary>
    /// <param name="fd">The file; O_PATH will do.</param>
    /// <param name="type">S_IFCHR or S_IFBLK.</param>
    /// <param name="mode">Permission bits.</param>
    /// <param name="device">Number as FUSE has it (the kernel's new_encode_dev).</param>
    /// <returns>0 or -1 with errno.</returns>
    internal static int Write(int fd, uint type, uint mode, uint device) => Write(fd, new Record
    {
        Format = Version,
        Type = (ushort)type,
        Mode = (ushort)mode,
        Major = (device >> 8) & MaxMajor,
        Minor = (device & 0xFF) | ((device >> 12) & 0xFFF00),
    });

    /// <summary>Changes the permission bits of a marked file.</summary>
    /// <returns>0 or -1 with errno.</returns>
    internal static int ChangeMode(int fd, uint mode)
    {
        if (!TryRead(fd, out Record record))
        {
            return -1;
        }

        record.Mode = (ushort)(mode & 0xFFF);
        return Write(fd, record);
    }

    /// <summary>Marks the folder of a marked file. Where that fails, a long listing calls the file a regular one.</summary>
    // Safe: the link has room for any descriptor's number; the kernel reads it only.
    internal static unsafe void WriteFolder(int fd)
    {
        byte* link = stackalloc byte[ProcFd.NameLength];
        ProcFd.Format(fd, link);
        byte one = 1;
        fixed (byte* name = FolderAttributeName)
        {
            _ = Libc.setxattr(link, name, &one, 1, 0);
        }
    }

    /// <summary>Whether a folder may have marked files.</summary>
    // Safe: the link has room for any descriptor's number; the kernel reads it only.
    internal static unsafe bool IsFolder(int fd)
    {
        byte* link = stackalloc byte[ProcFd.NameLength];
        ProcFd.Format(fd, link);
        fixed (byte* name = FolderAttributeName)
        {
            return Libc.getxattr(link, name, null, 0) >= 0;
        }
    }

    // Safe: the kernel reads a constant name, the link, and a record of this call.
    private static unsafe int Write(int fd, Record record)
    {
        byte* link = stackalloc byte[ProcFd.NameLength];
        ProcFd.Format(fd, link);
        fixed (byte* name = AttributeName)
        {
            return Libc.setxattr(link, name, &record, (nuint)sizeof(Record), 0);
        }
    }

    // The host's tree may hold anything: what is not as Write makes it is no mark.
    // Safe: the kernel writes at most a record to a local.
    private static unsafe bool TryRead(int fd, out Record record)
    {
        byte* link = stackalloc byte[ProcFd.NameLength];
        ProcFd.Format(fd, link);
        Record read;
        nint length;
        fixed (byte* name = AttributeName)
        {
            length = Libc.getxattr(link, name, &read, (nuint)sizeof(Record));
        }

        record = read;
        return length == sizeof(Record) && read.Format == Version && (uint)read.Type is Libc.S_IFCHR or Libc.S_IFBLK
            && read.Mode <= 0xFFF && read.Major <= MaxMajor && read.Minor <= MaxMinor;
    }

    /// <summary>The attribute's value, little-endian.</summary>
    [StructLayout(LayoutKind.Sequential, Pack = 1)]
    private struct Record
    {
        public ushort Format;
        public ushort Type;
        public ushort Mode;
        public uint Major;
        public uint Minor;
    }
}
