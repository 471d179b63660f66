using System.Globalization;
using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using Proto = MicroVm.Protocol.Agent;

namespace MicroVm.Sandbox.Plan;

/// <summary>HOME of a process whose environment has none: its user's in the container's passwd file, "/" when that has no such user, as runc.</summary>
internal static unsafe class HomeDirectory
{
    // An image must not make the runtime read without end.
    private const int MaxBytes = 1024 * 1024;

    /// <summary>Adds HOME to the environment unless it is there and not empty.</summary>
    /// <param name="process">The process.</param>
    /// <param name="rootfs">The container's root file system.</param>
    internal static void Add(Proto.Process process, string rootfs)
    {
        const string name = "HOME=";
        if (!process.Env.Any(e => e.StartsWith(name, StringComparison.Ordinal) && e.Length > name.Length))
        {
            process.Env.Remove(name);
            process.Env.Add(name + Of(process.User.Uid, Passwd(rootfs)));
        }
    }

    /// <summary>The home directory of user <paramref name="uid"/> in a file of passwd(5)'s form.</summary>
    internal static string Of(uint uid, string passwd)
    {
        string id = uid.ToString(CultureInfo.InvariantCulture);
        foreach (string line in passwd.Split('\n'))
        {
            string[] fields = line.Split(':');
            if (fields.Length >= 6 && fields[2] == id && !fields[5].Contains('\0', StringComparison.Ordinal))
            {
                return fields[5];
            }
        }

        return "/";
    }

    // Links of the image lead nowhere but into it, and a device node or a FIFO that stands there is never opened.
    private static string Passwd(string rootfs)
    {
        using SafeFd? file = RegularFile.TryOpenIn(rootfs, "etc/passwd\0"u8);
        return file is null ? "" : Read(file);
    }

    private static string Read(SafeFd file)
    {
        byte[] buffer = GC.AllocateUninitializedArray<byte>(MaxBytes);
        int length = 0;
        fixed (byte* p = buffer)
        {
            nint n;
            while (length < MaxBytes && (n = Libc.pread(file.Value, p + length, (nuint)(MaxBytes - length), length)) > 0)
            {
                length += (int)n;
            }
        }

        return Encoding.UTF8.GetString(buffer, 0, length);
    }
}
