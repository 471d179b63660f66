using System.Globalization;
using MicroVm.Linux;
using MicroVm.Linux.Child;
using MicroVm.Linux.Native;
using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Sandbox.Proxies;

namespace MicroVm.Sandbox.Pods;

/// <summary>
/// Starts the process that stands for a container's init on the host (<see cref="ProxyProcess"/>), as a child of this one: in the
/// namespaces of the host that stand for the container's, and in a view of its files (<see cref="ContainerMountNamespace"/>). Callers look at
/// the container by these: its network, files to copy, and which containers share what.
/// </summary>
internal sealed class ProxyLauncher : IDisposable
{
    // With a mount namespace, which every container has; the others stay the host's.
    private static readonly (string Type, int Flag)[] Kinds =
    [
        (NamespaceTypes.Network, Libc.CLONE_NEWNET), (NamespaceTypes.Ipc, Libc.CLONE_NEWIPC), (NamespaceTypes.Uts, Libc.CLONE_NEWUTS),
    ];

    private readonly NamespaceThread _thread = new();
    private readonly ContainerMountNamespace _view;
    private ProcessFiles? _files;

    private ProxyLauncher(ContainerMountNamespace view) => _view = view;

    /// <summary>The process.</summary>
    internal SpawnedProcess Process { get; private set; } = null!;

    /// <summary>Makes namespaces and view, and starts the process.</summary>
    /// <param name="spec">The container's.</param>
    /// <param name="bundle">Absolute path of its bundle.</param>
    /// <param name="socket">The proxy's end of its socket.</param>
    /// <param name="arguments">Those of the container's process.</param>
    /// <param name="id">The container's.</param>
    /// <exception cref="LinuxException">A namespace cannot be entered, or something of the view cannot be opened.</exception>
    internal static ProxyLauncher Start(Spec spec, string bundle, SafeFd socket, IReadOnlyList<string> arguments, string id)
    {
        ProxyLauncher launcher = new(ContainerMountNamespace.Open(spec, bundle, Path.GetFullPath(Path.Combine(bundle, spec.Root?.Path ?? ""))));
        try
        {
            launcher._thread.Do(() =>
            {
                EnterNamespaces(spec.Linux?.Namespaces ?? []);
                launcher._view.Enter();
                launcher.Process = ProxyProcess.Start(socket, arguments, [$"{ProxyArguments.Marker}={id}"]);
            });
            launcher._files = ProcessFiles.Open(launcher.Process.Pid, first: true);
            return launcher;
        }
        catch
        {
            launcher.Dispose();
            throw;
        }
    }

    /// <summary>Completes the view, once the guest has made the mount points: volumes, and what tells of the process.</summary>
    /// <param name="debug">Takes a line when the process cannot be shown: callers then do not find it in there, and the container runs all the same.</param>
    /// <exception cref="LinuxException">A volume cannot be attached.</exception>
    internal void Complete(Action<string> debug)
    {
        _thread.Do(_view.AttachVolumes);
        try
        {
            _thread.Do(_files!.Begin);
        }
        catch (LinuxException e)
        {
            debug($"the process is not listed in the container's /proc: {e.Message}");
        }
    }

    public void Dispose()
    {
        _thread.Dispose();
        _view.Dispose();
        _files?.Dispose();
    }

    private static void EnterNamespaces(List<Namespace> namespaces)
    {
        foreach ((string type, int flag) in Kinds)
        {
            if (namespaces.Find(n => n?.Type == type) is not { } ns)
            {
                continue;
            }

            if (string.IsNullOrEmpty(ns.Path))
            {
                Check.Result(Libc.unshare(flag), "unshare", string.Create(CultureInfo.InvariantCulture, $"{type} namespace"));
                continue;
            }

            using SafeFd file = SafeFd.From(Libc.open(ns.Path, Libc.O_RDONLY | Libc.O_CLOEXEC, 0), $"{type} namespace", ns.Path);
            Check.Result(Libc.setns(file.Value, flag), $"{type} namespace", ns.Path);
        }
    }
}
