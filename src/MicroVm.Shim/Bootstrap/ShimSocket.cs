using System.Text;
using MicroVm.Linux;

namespace MicroVm.Shim.Bootstrap;

/// <summary>Where a shim serves, by containerd's rule: <c>unix:///run/containerd/s/SHA256(containerd's socket/namespace/group)</c>.</summary>
/// <param name="Path">The socket's path.</param>
internal sealed record ShimSocket(string Path)
{
    private const string Scheme = "unix://";
    private const string Folder = "/run/containerd/s";
    private const uint FolderMode = 0b111_000_000;

    /// <summary>As containerd connects to it.</summary>
    internal string Address => Scheme + Path;

    /// <summary>The socket of a group: of a container, or of a pod by its sandbox's id.</summary>
    internal static ShimSocket Of(string containerd, string ns, string group)
    {
        string name = string.Join('/', new[] { containerd, ns, group }.Select(p => p.TrimEnd('/')));
        return new ShimSocket($"{Folder}/{Convert.ToHexStringLower(Sha256.HashData(Encoding.UTF8.GetBytes(name)))}");
    }

    /// <summary>Whether a shim listens there.</summary>
    internal bool IsServed()
    {
        using SafeFd? connection = UnixSocket.TryConnect(Encoding.UTF8.GetBytes(Path), out _);
        return connection is not null;
    }

    /// <summary>Listens there, in place of a shim that is gone.</summary>
    /// <exception cref="LinuxException">A shim listens there, or the folder cannot be made.</exception>
    internal SafeFd Listen()
    {
        HostFile.MakeFolder(Folder, FolderMode);
        return UnixSocket.Listen(Path);
    }

    /// <summary>Removes the socket's file.</summary>
    internal void Remove() => File.Delete(Path);
}
