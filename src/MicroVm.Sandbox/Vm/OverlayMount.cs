using MicroVm.Linux;
using MicroVm.Linux.Jail;
using MicroVm.Linux.Native;

namespace MicroVm.Sandbox.Vm;

/// <summary>
/// An overlay of host directories, as Podman's ":O" volumes are: made on the host, in a mount namespace that ends with the call,
/// so that nothing stays mounted there; it lives as long as the detached copy of it.
/// </summary>
internal static unsafe class OverlayMount
{
    // Any directory that every host has; what is in it is hidden from the calling thread alone.
    private const string Place = "/proc";

    /// <summary>Mounts an overlay.</summary>
    /// <param name="data">Its options: lowerdir, upperdir, workdir and others of the file system's.</param>
    /// <param name="readOnly">Nothing can be changed through it.</param>
    /// <param name="what">What messages call it.</param>
    /// <returns>The root of a detached mount.</returns>
    /// <exception cref="SandboxException">The kernel refused.</exception>
    internal static SafeFd Make(string data, bool readOnly, string what)
    {
        try
        {
            return OwnThread.Run(() =>
            {
                Check.Result(Libc.unshare(Libc.CLONE_FS | Libc.CLONE_NEWNS), "unshare", "CLONE_NEWNS");
                Check.Result(Libc.mount(null, "/", null, (nuint)(Libc.MS_REC | Libc.MS_PRIVATE), null), "mount", "/ private");
                Check.Result(Libc.mount("overlay", Place, "overlay", (nuint)(readOnly ? Libc.MS_RDONLY : 0), data), "mount", $"overlay ({data})");
                using SafeFd root = SafeFd.From(Libc.open(Place, Libc.O_PATH | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0), "open", "overlay");
                return DetachedMount.Clone(root, readOnly, "overlay", recursive: false, Libc.MS_PRIVATE);
            });
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"{what}: {e.Message}", e);
        }
    }
}
