using System.Globalization;
using MicroVm.Linux;
using MicroVm.Linux.Jail;
using MicroVm.Linux.Native;

namespace MicroVm.Sandbox.Proxies;

/// <summary>
/// What /proc of a <see cref="ContainerMountNamespace"/> tells of the processes that stand for the container's, for callers that list
/// processes there (podman top): of each its arguments, figures and PID namespace. Single files, since a whole /proc/PID leads by
/// its links to the host's root, where names from the container's own files could then lead, too.
/// </summary>
internal sealed unsafe class ProcessFiles : IDisposable
{
    private const string Proc = "/proc", HostFigures = Proc + "/stat", PidNamespace = "ns/pid";
    private const uint FolderMode = 0b101_101_101;
    private static readonly string[] Names = ["stat", "status", "cmdline"];

    private readonly string _folder;
    private readonly List<(string Path, SafeFd File)> _files = [];
    private readonly string _pidNamespace;
    private readonly SafeFd? _figures;
    private SafeFd? _view;

    private ProcessFiles(int pid, bool first)
    {
        _folder = string.Create(CultureInfo.InvariantCulture, $"{Proc}/{pid}");
        _pidNamespace = new FileInfo($"{_folder}/{PidNamespace}").LinkTarget ?? "";
        try
        {
            _figures = first ? Clone(HostFigures) : null;
            foreach (string name in Names)
            {
                string path = $"{_folder}/{name}";
                _files.Add((path, Clone(path)));
            }
        }
        catch (LinuxException)
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Opens the files of a process.</summary>
    /// <param name="pid">The process.</param>
    /// <param name="first">For <see cref="Begin"/>, which needs the host's figures, too.</param>
    /// <exception cref="LinuxException">/proc is not there.</exception>
    internal static ProcessFiles Open(int pid, bool first) => new(pid, first);

    /// <summary>
    /// Makes /proc, in the view that the calling thread is in, with the files of the process. Nothing is made where the container has
    /// no folder of that name.
    /// </summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    internal void Begin()
    {
        if (new DirectoryInfo(Proc) is not { Exists: true, LinkTarget: null })
        {
            return;
        }

        const ulong flags = Libc.MS_NOSUID | Libc.MS_NODEV | Libc.MS_NOEXEC;
        Check.Result(Libc.mount("tmpfs", Proc, "tmpfs", (nuint)flags, "size=64k,nr_inodes=16k,mode=555"), "mount", "/proc of the container's view");
        Attach((HostFigures, _figures!));
        Add();
    }

    /// <summary>Adds the files of the process to the view that <paramref name="pid"/> is in.</summary>
    /// <exception cref="LinuxException">The kernel refused, or the process is gone.</exception>
    internal void AddTo(int pid)
    {
        OpenView(pid);
        InView(_view!, Add);
    }

    /// <summary>Holds the view that <paramref name="pid"/> is in, for <see cref="Remove"/>.</summary>
    /// <exception cref="LinuxException">The process is gone.</exception>
    internal void OpenView(int pid)
    {
        string path = string.Create(CultureInfo.InvariantCulture, $"{Proc}/{pid}/ns/mnt");
        _view?.Dispose();
        _view = SafeFd.From(Libc.open(path, Libc.O_RDONLY | Libc.O_CLOEXEC, 0), "open", path);
    }

    /// <summary>
    /// Takes out again what was added, if anything was. A process that is killed leaves names that lead nowhere. By now this process may
    /// have given up the rights to look at the other one.
    /// </summary>
    internal void Remove()
    {
        if (_view is null)
        {
            return;
        }

        try
        {
            InView(_view, RemoveFiles);
        }
        catch (LinuxException)
        {
            // The container has ended, and its view with it.
        }
    }

    public void Dispose()
    {
        _files.ForEach(f => f.File.Dispose());
        _figures?.Dispose();
        _view?.Dispose();
    }

    private static SafeFd Clone(string path)
    {
        using SafeFd file = OpenPath(path);
        return DetachedMount.Clone(file, readOnly: true, path);
    }

    private static SafeFd OpenPath(string path) =>
        SafeFd.From(Libc.open(path, Libc.O_PATH | Libc.O_NOFOLLOW | Libc.O_CLOEXEC, 0), "open", path);

    private static void InView(SafeFd view, Action action) => _ = OwnThread.Run(() =>
    {
        // Threads share their root and working directory, which a mount namespace comes with.
        Check.Result(Libc.unshare(Libc.CLONE_FS), "unshare", "CLONE_FS");
        Check.Result(Libc.setns(view.Value, Libc.CLONE_NEWNS), "setns", "mount namespace of the container's view");
        if (IsOurs())
        {
            action();
        }

        return 0;
    });

    /// <summary>Whether /proc is the one of <see cref="Begin"/>, and no folder of the container's own.</summary>
    private static bool IsOurs()
    {
        using SafeFd file = new(Libc.open(HostFigures, Libc.O_PATH | Libc.O_NOFOLLOW | Libc.O_CLOEXEC, 0));
        Libc.statfs_t figures;
        return !file.IsInvalid && Libc.fstatfs(file.Value, &figures) == 0 && figures.f_type == Libc.PROC_SUPER_MAGIC;
    }

    private void Add()
    {
        MakeFolder(_folder);
        MakeFolder($"{_folder}/ns");
        MakeLink(_pidNamespace, $"{_folder}/{PidNamespace}");
        _files.ForEach(Attach);
    }

    private void RemoveFiles()
    {
        foreach ((string path, _) in _files)
        {
            _ = Libc.umount2(path, Libc.MNT_DETACH);
            _ = Libc.unlink(path);
        }

        _ = Libc.unlink($"{_folder}/{PidNamespace}");
        _ = Libc.rmdir($"{_folder}/ns");
        _ = Libc.rmdir(_folder);
    }

    // The mount point is a link that leads nowhere: once the process has ended, there is no such file, whoever ended it.
    private static void Attach((string Path, SafeFd File) file)
    {
        MakeLink("ended", file.Path);
        using SafeFd place = OpenPath(file.Path);
        if (!DetachedMount.TryAttach(file.File, place))
        {
            Check.Throw("move_mount", file.Path);
        }
    }

    private static void MakeFolder(string path) => Check.Result(Libc.mkdir(path, FolderMode), "mkdir", path);

    private static void MakeLink(string target, string path) => Check.Result(Libc.symlink(target, path), "symlink", path);
}
