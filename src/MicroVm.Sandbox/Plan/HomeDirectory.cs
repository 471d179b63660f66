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

    /// <summary>Adds HOME to the environment unless it is there.</summary>
    /// <param name="process">The process.</param>
    /// <param name="rootfs">The container's root file system.</param>
    internal static void Add(Proto.Process process, string rootfs)
    {
        const string name = "HOME=";
        if (!process.Env.Any(e => e.StartsWith(name, StringComparison.Ordinal) && e.Length > name.Length))
        {
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

    private static string Passwd(string rootfs)
    {
        int root = Libc.open(rootfs, Libc.O_PATH | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0);
        if (root < 0)
        {
            return "";
        }

        using SafeFd directory = new(root);
        Libc.open_how how = new()
        {
            // Links of the image lead nowhere but into it; whatever stands there must not block.
            flags = Libc.O_RDONLY | Libc.O_NONBLOCK | Libc.O_NOCTTY | Libc.O_CLOEXEC,
            resolve = Libc.RESOLVE_IN_ROOT | Libc.RESOLVE_NO_MAGICLINKS,
        };
        fixed (byte* path = "etc/passwd\0"u8)
        {
            nint fd = Libc.syscall((nint)Libc.SYS_openat2, directory.Value, (nint)path, (nint)(&how), sizeof(Libc.open_how), 0, 0);
            if (fd < 0)
            {
                return "";
            }

            using SafeFd file = new((int)fd);
            return Vm.FileType.Of(file) == Libc.S_IFREG ? Read(file) : "";
        }
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
