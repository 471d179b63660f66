using System.Text;
using MicroVm.Linux;
using MicroVm.Oci.Config;

namespace MicroVm.Sandbox.Plan;

/// <summary>Decides whether a root that is read-only for the container is so for its VM, too: the wall is the host's then, and not the guest's alone.</summary>
internal static class ReadOnlyRoot
{
    /// <summary>Whether nothing has to be made in the root before the container's process begins: no mount point, device node or working directory.</summary>
    /// <param name="spec">The specification.</param>
    /// <param name="rootfs">Path of the root file system.</param>
    internal static bool Suffices(Spec spec, string rootfs)
    {
        // createContainer's hooks may write to the root: it becomes read-only after them.
        if (spec.Root?.Readonly is not true || spec.Hooks?.CreateContainer is { Count: > 0 })
        {
            return false;
        }

        List<string> mounted = [];
        foreach (Mount mount in spec.Mounts ?? [])
        {
            string destination = Clean(mount.Destination);
            if (!IsBeneath(mounted, destination) && !Exists(rootfs, destination))
            {
                return false;
            }

            mounted.Add(destination);
        }

        return mounted.Contains("/dev")
            && (spec.Linux?.Devices ?? []).TrueForAll(d => IsBeneath(mounted, Clean(d.Path)))
            && (IsBeneath(mounted, Clean(spec.Process?.Cwd)) || Exists(rootfs, Clean(spec.Process?.Cwd)));
    }

    private static string Clean(string? path) => "/" + (path ?? "").Trim('/');

    // By names alone: what a link leads to counts as part of the root, where it may have to be made.
    private static bool IsBeneath(List<string> mounted, string path) =>
        !path.Contains("/../", StringComparison.Ordinal)
        && mounted.Exists(m => path.StartsWith(m, StringComparison.Ordinal) && path.Length > m.Length && path[m.Length] == '/');

    private static bool Exists(string rootfs, string path)
    {
        using SafeFd? file = InRoot.TryFind(rootfs, Encoding.UTF8.GetBytes(path + '\0'));
        return file is not null;
    }
}
