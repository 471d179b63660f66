using System.Globalization;
using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Agent.Rootfs;

/// <summary>
/// The procfs of a container's PID namespace, for containers that join it. A procfs shows the namespace of the process that opens it
/// (fsopen(2)); the init of a container that joins is in the namespace, where it may meet hostile processes, only once it has given up
/// the agent's rights. So the container that the namespace was made with opens one for them all. Any thread.
/// </summary>
public sealed class NamespaceProc : IDisposable
{
    private static int s_made;
    private readonly object _lock = new();
    private readonly SafeFd _context;
    private string? _path;
    private int _users = 1;

    /// <summary>For a container with a new namespace.</summary>
    /// <param name="context">From fsopen(2) by a process in it; taken over.</param>
    public NamespaceProc(SafeFd context) => _context = context;

    /// <summary>The same for one more container.</summary>
    public NamespaceProc Share()
    {
        lock (_lock)
        {
            _users++;
            return this;
        }
    }

    /// <summary>Where it is mounted, without options; it is mounted when first asked for.</summary>
    /// <param name="own">The folder for the agent's own things, in the mount namespace that containers' are copied from.</param>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public unsafe string MountedAt(string own)
    {
        lock (_lock)
        {
            if (_path is null)
            {
                string path = string.Create(CultureInfo.InvariantCulture, $"{own}/proc.{Interlocked.Increment(ref s_made)}");
                fixed (byte* p = Encoding.UTF8.GetBytes(path + '\0'))
                {
                    Check.Result(Libc.mkdirat(Libc.AT_FDCWD, p, 0x1c0), "mkdir", path);
                }

                using SafeFd folder = SafeFd.From(Libc.open(path, Libc.O_PATH | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0), "open", path);
                using SafeFd tree = MountCalls.FinishFileSystem(_context, "proc", "", 0);
                MountCalls.Attach(tree, folder);
                _path = path;
            }

            return _path;
        }
    }

    /// <summary>For one container less; the last one's end is that of the mount.</summary>
    public unsafe void Dispose()
    {
        lock (_lock)
        {
            if (--_users > 0)
            {
                return;
            }

            _context.Dispose();
            if (_path is not null)
            {
                _ = Libc.umount2(_path, Libc.MNT_DETACH);
                fixed (byte* p = Encoding.UTF8.GetBytes(_path + '\0'))
                {
                    _ = Libc.unlinkat(Libc.AT_FDCWD, p, Libc.AT_REMOVEDIR);
                }
            }
        }
    }
}
