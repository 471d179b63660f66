using System.Runtime.ExceptionServices;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Oci.Mounts;
using MicroVm.Sandbox;
using Mount = MicroVm.Shim.Api.Mount;

namespace MicroVm.Shim.Mounts;

/// <summary>
/// The mounts of a container's root file system, made at one place one over the other, in this process's own mount namespace: they
/// end with the process at the latest.
/// </summary>
internal sealed class RootfsMounts : IDisposable
{
    private const uint FolderMode = 0b111_000_111;
    private static readonly string[] KnownTypes = ["bind", "rbind", "overlay", "ext4", "ext3", "ext2", "xfs", "btrfs", "erofs", "squashfs", "zfs", "tmpfs"];
    private readonly string _target;
    private int _made;

    private RootfsMounts(string target) => _target = target;

    /// <summary>Makes them.</summary>
    /// <param name="mounts">As containerd's snapshotter gives them; none is no error: the folder is the root then.</param>
    /// <param name="target">The bundle's rootfs folder, made where it is missing.</param>
    /// <exception cref="SandboxException">One is of a kind that is not supported, or the kernel refuses it; none is left.</exception>
    internal static RootfsMounts Make(IReadOnlyList<Mount> mounts, string target)
    {
        RootfsMounts made = new(target);
        try
        {
            if (mounts.Count > 0)
            {
                HostFile.MakeFolder(target, FolderMode);
            }

            foreach (Mount mount in mounts)
            {
                made.Add(mount);
            }

            return made;
        }
        catch (LinuxException e)
        {
            made.Dispose();
            throw new SandboxException($"failed to mount rootfs component: {e.Message}", e);
        }
        catch
        {
            made.Dispose();
            throw;
        }
    }

    /// <summary>Takes them away; who still has a file open keeps it.</summary>
    public void Dispose()
    {
        for (; _made > 0; _made--)
        {
            _ = Libc.umount2(_target, Libc.MNT_DETACH);
        }
    }

    private void Add(Mount mount)
    {
        string where = $"rootfs mount of type {mount.Type} from {mount.Source}";
        if (!KnownTypes.Contains(mount.Type))
        {
            throw new SandboxException($"{where}: the type is not supported; known are {string.Join(", ", KnownTypes)}");
        }

        if (mount.Target.Trim('/').Length > 0)
        {
            throw new SandboxException($"{where}: a target (\"{mount.Target}\") below the root is not supported");
        }

        if (mount.Options.FirstOrDefault(o => o == "loop" || o.StartsWith("uidmap=", StringComparison.Ordinal) || o.StartsWith("gidmap=", StringComparison.Ordinal)) is { } option)
        {
            throw new SandboxException($"{where}: option {option} is not supported");
        }

        MountOptions options = MountOptions.Resolve([.. mount.Options], where);
        bool bind = mount.Type is "bind" or "rbind" || (options.Flags & Libc.MS_BIND) != 0;
        if (bind)
        {
            Bind(mount, options);
        }
        else
        {
            OverlayData data = OverlayData.Shorten(options.Data);
            In(data.Folder, () => Mount(mount.Source, mount.Type, options.Flags, data.Text));
            _made++;
        }
    }

    private void Bind(Mount mount, MountOptions options)
    {
        ulong recursive = mount.Type == "rbind" ? Libc.MS_REC : options.Flags & Libc.MS_REC;
        Mount(mount.Source, null, Libc.MS_BIND | recursive, "");
        _made++;

        // Flags of a bind mount take effect by a second call only (mount(2)).
        if ((options.Flags & ~(Libc.MS_BIND | Libc.MS_REC)) is not 0 and var flags)
        {
            Mount(null, null, Libc.MS_BIND | Libc.MS_REMOUNT | flags, "");
        }
    }

    private void Mount(string? source, string? type, ulong flags, string data) =>
        Check.Result(Libc.mount(source, _target, type, (nuint)flags, data.Length == 0 ? null : data), "mount", $"{source ?? "flags"} on {_target}");

    /// <summary>Runs an action in a folder, on a thread whose working folder is not the process's.</summary>
    private static void In(string? folder, Action action)
    {
        if (folder is null)
        {
            action();
            return;
        }

        ExceptionDispatchInfo? failure = null;
        Thread thread = new(
            () =>
            {
                try
                {
                    Check.Result(Libc.unshare(Libc.CLONE_FS), "unshare", "CLONE_FS");
                    using SafeFd fd = SafeFd.From(Libc.open(folder, Libc.O_PATH | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0), "open", folder);
                    Check.Result(Libc.fchdir(fd.Value), "fchdir", folder);
                    action();
                }
                catch (LinuxException e)
                {
                    failure = ExceptionDispatchInfo.Capture(e);
                }
            },
            256 << 10);
        thread.Start();
        thread.Join();
        failure?.Throw();
    }
}
