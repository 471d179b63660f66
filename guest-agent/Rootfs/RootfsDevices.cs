using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;

namespace MicroVm.Agent.Rootfs;

public sealed unsafe partial class RootfsBuilder
{
    // The runtime specification's default devices.
    private static readonly (string Name, uint Major, uint Minor)[] DefaultDevices =
    [
        ("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0),
    ];

    private static readonly (string Name, string Target)[] DefaultLinks =
    [
        ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2"),
    ];

    /// <summary>Shows a terminal's slave at /dev/console.</summary>
    /// <exception cref="SetupException">The kernel refused.</exception>
    public void MountConsole(SafeFd slave) => Step("mounting /dev/console", () =>
    {
        using SafeFd target = Root.MakeFile("/dev/console");
        using SafeFd tree = MountCalls.CloneTree(slave, recursive: false);
        MountCalls.Attach(tree, target);
    });

    private void MakeDevices() => Step("creating device nodes", () =>
    {
        using SafeFd dev = Root.MakeDirectory("/dev");
        HashSet<string> given = [.. _spec.Devices.Select(d => d.Path)];
        foreach ((string name, uint major, uint minor) in DefaultDevices)
        {
            if (!given.Contains("/dev/" + name))
            {
                MakeNode(dev, name, Libc.S_IFCHR | 0x1b6, major, minor);
            }
        }

        for (int i = 0; i < _spec.Devices.Count; i++)
        {
            if (_spec.Devices[i].Type != 'p' && !_devices.Has(_spec.Devices[i]))
            {
                MissingDevices.Add((uint)i);
                continue;
            }

            MakeDevice(_spec.Devices[i]);
        }

        foreach ((string name, string target) in DefaultLinks)
        {
            MakeLink(dev, name, target);
        }

        using SafeFd? ptmx = Root.TryOpen("/dev/pts/ptmx");
        if (ptmx is not null)
        {
            MakePtmx(dev);
        }
    });

    private static void MakePtmx(SafeFd dev)
    {
        fixed (byte* name = "ptmx\0"u8)
        {
            _ = Libc.unlinkat(dev.Value, name, 0);
        }

        MakeLink(dev, "ptmx", "pts/ptmx");
    }

    private void MakeDevice(Device device)
    {
        int slash = device.Path.LastIndexOf('/');
        if (slash < 0 || slash == device.Path.Length - 1)
        {
            throw new SetupException($"\"{device.Path}\" is no device path");
        }

        using SafeFd parent = Root.MakeDirectory(slash == 0 ? "/" : device.Path[..slash]);
        string name = device.Path[(slash + 1)..];
        try
        {
            MakeNode(parent, name, TypeOf(device) | (device.Mode & 0xfff), device.Major, device.Minor);
            ChangeOwner(parent, name, device);
        }
        catch (LinuxException e) when (e.Errno == Errno.EPERM)
        {
            // A file system that takes no nodes: as runc does where it may make none, one from elsewhere is bound over a file.
            using SafeFd target = Root.MakeFile(device.Path);
            using SafeFd node = OpenNode(device);
            MountCalls.Bind(node, target, recursive: false);
        }
    }

    private static uint TypeOf(Device device) => device.Type switch
    {
        'c' or 'u' => Libc.S_IFCHR,
        'b' => Libc.S_IFBLK,
        'p' => Libc.S_IFIFO,
        _ => throw new SetupException($"device \"{device.Path}\": type {device.Type} is none of c, b, p"),
    };

    private static void ChangeOwner(SafeFd directory, string name, Device device)
    {
        if (device.Uid != 0 || device.Gid != 0)
        {
            fixed (byte* p = Encoding.UTF8.GetBytes(name + '\0'))
            {
                Check.Result(Libc.fchownat(directory.Value, p, device.Uid, device.Gid, Libc.AT_SYMLINK_NOFOLLOW), "chown", device.Path);
            }
        }
    }

    /// <summary>A node of a device in a tmpfs that no container sees, to be bound; O_PATH.</summary>
    private SafeFd OpenNode(Device device)
    {
        if (_nodes is null)
        {
            Check.Result(Libc.mount("tmpfs", _paths.Nodes, "tmpfs", 0, "mode=700"), "mount", _paths.Nodes);
            _nodes = SafeFd.From(Libc.open(_paths.Nodes, Libc.O_PATH | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0), "open", _paths.Nodes);
        }

        string name = (_nodeCount++).ToString(System.Globalization.CultureInfo.InvariantCulture);
        MakeNode(_nodes, name, TypeOf(device) | (device.Mode & 0xfff), device.Major, device.Minor);
        ChangeOwner(_nodes, name, device);
        return SafeFd.From(Libc.openat(_nodes.Value, name, Libc.O_PATH | Libc.O_NOFOLLOW | Libc.O_CLOEXEC, 0), "open", device.Path);
    }

    private static void MakeNode(SafeFd directory, string name, uint mode, uint major, uint minor)
    {
        fixed (byte* p = Encoding.UTF8.GetBytes(name + '\0'))
        {
            // glibc's makedev(3).
            ulong dev = (minor & 0xffUL) | ((major & 0xfffUL) << 8) | ((minor & ~0xffUL) << 12) | ((major & ~0xfffUL) << 32);
            if (Libc.mknodat(directory.Value, p, mode, dev) < 0 && Check.LastErrno != Errno.EEXIST)
            {
                Check.Throw("mknod", name);
            }
        }
    }

    private static void MakeLink(SafeFd directory, string name, string target)
    {
        fixed (byte* p = Encoding.UTF8.GetBytes(name + '\0'))
        {
            fixed (byte* t = Encoding.UTF8.GetBytes(target + '\0'))
            {
                if (Libc.symlinkat(t, directory.Value, p) < 0 && Check.LastErrno != Errno.EEXIST)
                {
                    Check.Throw("symlink", name);
                }
            }
        }
    }
}
