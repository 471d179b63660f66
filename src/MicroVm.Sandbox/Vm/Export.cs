using MicroVm.Linux;
using MicroVm.Linux.Jail;
using MicroVm.Linux.Native;

namespace MicroVm.Sandbox.Vm;

/// <summary>A host directory or file that the VM's virtio-fs device shows; owns its descriptor.</summary>
internal sealed record Export(string Name, SafeFd File, bool ReadOnly, bool IsFile) : IDisposable
{
    /// <summary>Mount tag of the VM's virtio-fs device.</summary>
    internal const string Tag = "microvm";

    /// <summary>Name of the container's root file system, which nothing but its VM is expected to change while it runs.</summary>
    internal const string Rootfs = "rootfs";

    /// <summary>Opens a directory or a regular file for export.</summary>
    /// <exception cref="SandboxException">It does not exist, or is something else.</exception>
    internal static Export Open(string name, string path, bool readOnly, string what)
    {
        int fd = Libc.open(path, Libc.O_PATH | Libc.O_CLOEXEC, 0);
        if (fd < 0)
        {
            throw new SandboxException($"{what} {path}: {LinuxException.Text(Check.LastErrno).ToLowerInvariant()}");
        }

        SafeFd file = new(fd);
        uint type = FileType.Of(file);
        if (type is not (Libc.S_IFDIR or Libc.S_IFREG))
        {
            file.Dispose();
            throw new SandboxException($"{what} {path} is neither a directory nor a regular file: devices, sockets and FIFOs of the host cannot be mounted in a VM");
        }

        using (file)
        {
            return new Export(name, Detach(file, readOnly, what, path), readOnly, type == Libc.S_IFREG);
        }
    }

    public void Dispose() => File.Dispose();

    // The VMM is given a tree without parents: from an ordinary directory's descriptor it could go up to the host's root.
    private static SafeFd Detach(SafeFd file, bool readOnly, string what, string path)
    {
        try
        {
            return DetachedMount.Clone(file, readOnly, path);
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"{what} {path} cannot be shown to the VM: {e.Message}", e);
        }
    }
}
