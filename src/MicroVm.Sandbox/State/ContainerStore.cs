using System.Text.Json;
using MicroVm.Json;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Oci;

namespace MicroVm.Sandbox.State;

/// <summary>
/// The containers of one <c>--root</c> folder: a folder each, with state.json. Every change is made under a lock (flock on
/// the root folder itself) and by rename, so that a reader sees a whole state and two callers cannot take one id.
/// </summary>
public sealed class ContainerStore
{
    /// <summary>What runc says of an unknown id; callers look for it.</summary>
    public const string ContainerMissing = "container does not exist";

    // No id has this character.
    private const string VmFolders = "@vm";
    private const string StateFile = "state.json", ReserveFile = "reserve";
    private const long PageSize = 4096;
    private const uint FolderMode = 0b111_000_000;
    private const int MaxStateBytes = 4 << 20;
    private readonly string _root;

    /// <summary>Uses <paramref name="root"/>, which is made when it does not exist.</summary>
    /// <exception cref="SandboxException">It cannot be made.</exception>
    public ContainerStore(string root)
    {
        _root = Path.GetFullPath(root);
        try
        {
            HostFile.MakeFolder(_root, FolderMode);
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"the state folder cannot be made: {e.Message}", e);
        }
    }

    /// <summary>Folder of a container.</summary>
    public string FolderOf(string id) => Path.Combine(_root, id);

    /// <summary>Socket of the VMM of a container, in a folder of the VM's own: the VMM sees nothing else.</summary>
    public string VsockOf(ContainerState state)
    {
        ArgumentNullException.ThrowIfNull(state);
        return VsockOf(state.VmFolder ?? throw new SandboxException($"container {state.Id} was created by another version of microvm"));
    }

    /// <summary>Socket of the VMM whose folder has a name.</summary>
    internal string VsockOf(string vmFolder) => Path.Combine(_root, VmFolders, vmFolder, "vsock");

    /// <summary>Makes the folder of a VM. It has no container yet: the caller removes it, whatever becomes of that.</summary>
    /// <exception cref="LinuxException">It cannot be made.</exception>
    internal void MakeVmFolder(string name)
    {
        using SafeFd held = Lock();
        HostFile.MakeFolder(Path.Combine(_root, VmFolders), FolderMode);
        Vm.GuestReady.MakeFolder(VsockOf(name));
    }

    /// <summary>Removes the folder of a VM that has ended; nothing happens when it is gone.</summary>
    internal void RemoveVmFolder(string name)
    {
        using SafeFd held = Lock();
        RemoveVmFolderLocked(name);
    }

    /// <summary>
    /// Takes the id and writes the first state. What a dead command in the foreground left under the id, or a dead
    /// creation, is removed first.
    /// </summary>
    /// <exception cref="SpecException">The id is malformed.</exception>
    /// <exception cref="SandboxException">The id is in use.</exception>
    public void Create(ContainerState state)
    {
        ArgumentNullException.ThrowIfNull(state);
        ContainerId.Check(state.Id);
        string folder = FolderOf(state.Id);
        using SafeFd held = Lock();
        if (Directory.Exists(folder))
        {
            // One that is being deleted is in use until it is gone.
            using HeldContainer? stale = HeldContainer.Take(folder, wait: false);
            if (stale is null
                || (Read(folder) is { } other && (!(other.Transient || other.Status == ContainerStatus.Creating) || other.Init.IsAlive())))
            {
                throw new SandboxException("container with given ID already exists");
            }

            RemoveFolder(folder);
        }

        try
        {
            HostFile.MakeFolder(folder, FolderMode);
            Write(folder, state);
            Reserve(folder);
        }
        catch (LinuxException e)
        {
            RemoveFolder(folder);
            throw new SandboxException($"the state of container {state.Id} cannot be written: {e.Message}", e);
        }
    }

    /// <summary>Replaces the state.</summary>
    /// <exception cref="SandboxException">It cannot be written.</exception>
    public void Update(ContainerState state)
    {
        ArgumentNullException.ThrowIfNull(state);
        using SafeFd held = Lock();
        string folder = FolderOf(state.Id);
        try
        {
            try
            {
                Write(folder, state);
            }
            catch (LinuxException e) when (e.Errno is Errno.ENOSPC or Errno.EDQUOT)
            {
                // The old state's space is free afterwards, for the next reserve.
                _ = Libc.unlink(Path.Combine(folder, ReserveFile));
                Write(folder, state);
                TryReserve(folder);
            }
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"the state of container {state.Id} cannot be written: {e.Message}", e);
        }
    }

    /// <summary>Takes a container for its deletion; null when there is none. Waits while another deletes it.</summary>
    /// <exception cref="SpecException">The id is malformed.</exception>
    /// <exception cref="SandboxException">The folder cannot be locked.</exception>
    internal HeldContainer? Hold(string id)
    {
        ContainerId.Check(id);
        return HeldContainer.Take(FolderOf(id), wait: true);
    }

    /// <summary>The state of a container; null when there is none of that id.</summary>
    /// <exception cref="SpecException">The id is malformed.</exception>
    public ContainerState? Find(string id)
    {
        ContainerId.Check(id);
        return Read(FolderOf(id));
    }

    /// <summary>The state of a container.</summary>
    /// <exception cref="SpecException">The id is malformed.</exception>
    /// <exception cref="SandboxException">There is none of that id, in runc's words.</exception>
    public ContainerState Get(string id) => Find(id) ?? throw new SandboxException(ContainerMissing);

    /// <summary>All containers with a state, by id.</summary>
    /// <param name="unreadable">Takes a line for each container whose state this version does not know.</param>
    /// <exception cref="SandboxException">The folder cannot be read.</exception>
    public IReadOnlyList<ContainerState> All(Action<string> unreadable)
    {
        ArgumentNullException.ThrowIfNull(unreadable);
        List<ContainerState> all = [];
        foreach (string folder in Folders())
        {
            try
            {
                if (Read(folder) is { } state)
                {
                    all.Add(state);
                }
            }
            catch (SandboxException e)
            {
                unreadable($"{Path.GetFileName(folder)}: {e.Message}");
            }
        }

        all.Sort((a, b) => string.CompareOrdinal(a.Id, b.Id));
        return all;
    }

    private string[] Folders()
    {
        try
        {
            return Directory.GetDirectories(_root);
        }
        catch (Exception e) when (e is UnauthorizedAccessException or IOException)
        {
            string reason = e is UnauthorizedAccessException ? "permission denied; its containers belong to another user, use sudo" : e.Message;
            throw new SandboxException($"open {_root}: {reason}", e);
        }
    }

    /// <summary>Forgets a container, its folder and all that lies there; a later one of the same id stays.</summary>
    public void Delete(ContainerState state)
    {
        ArgumentNullException.ThrowIfNull(state);
        DeleteIf(state.Id, found => found?.Init == state.Init);
    }

    /// <summary>Removes what a crash left of an id: a folder without a state.</summary>
    internal void DeleteStateless(string id) => DeleteIf(id, found => found is null);

    /// <summary>The containers of one VM that live, except for one.</summary>
    internal IReadOnlyList<ContainerState> Companions(ContainerState state) => state.Sandbox is not { } sandbox || !sandbox.IsAlive() ? []
        : [.. All(_ => { }).Where(s => s.Id != state.Id && s.Sandbox == sandbox && s.LiveStatus() != ContainerStatus.Stopped)];

    private void RemoveVmFolderLocked(string name)
    {
        string folders = Path.Combine(_root, VmFolders);
        try
        {
            HostFolder.Remove(Path.Combine(folders, name));
        }
        catch (LinuxException)
        {
            // What is left of it is nobody's.
        }

        // Fails while there are others.
        _ = Libc.rmdir(folders);
    }

    private void DeleteIf(string id, Func<ContainerState?, bool> wanted)
    {
        using SafeFd held = Lock();
        if (wanted(Read(FolderOf(id))))
        {
            RemoveFolder(FolderOf(id));
        }
    }

    // Space for one more state: commands must be able to end a container on a full disk, too.
    private static void Reserve(string folder)
    {
        string path = Path.Combine(folder, ReserveFile);
        using SafeFd file = SafeFd.From(Libc.open(path, Libc.O_WRONLY | Libc.O_CREAT | Libc.O_CLOEXEC, 0b110_000_000), "open", path);
        long size = (new FileInfo(Path.Combine(folder, StateFile)).Length | (PageSize - 1)) + 1;
        if (Libc.fallocate(file.Value, 0, 0, size) < 0 && Check.LastErrno is Errno.ENOSPC or Errno.EDQUOT)
        {
            Check.Throw("fallocate", path);
        }
    }

    private static void TryReserve(string folder)
    {
        try
        {
            Reserve(folder);
        }
        catch (LinuxException)
        {
            _ = Libc.unlink(Path.Combine(folder, ReserveFile));
        }
    }

    private static ContainerState? Read(string folder)
    {
        try
        {
            // A folder without one is what a crash left.
            return HostFile.TryReadAllBytes(Path.Combine(folder, StateFile), MaxStateBytes, out _) is { } json ? JsonRecords.Read<ContainerState>(json) : null;
        }
        catch (JsonException)
        {
            // Written by rename, so a damaged one is none of ours.
            return null;
        }
    }

    private static void Write(string folder, ContainerState state) =>
        HostFile.Replace(Path.Combine(folder, StateFile), JsonRecords.Write(state), 0b110_000_000);

    private void RemoveFolder(string folder)
    {
        try
        {
            // A VMM ends with the process that started it, which others may use yet.
            if (Read(folder) is { } state && !(state.Sandbox?.IsAlive() ?? false))
            {
                if (state.Vmm is { } vmm && vmm.IsAlive())
                {
                    _ = Libc.kill(vmm.Pid, Libc.SIGKILL);
                }

                if (state.VmFolder is { } vm)
                {
                    RemoveVmFolderLocked(vm);
                }
            }

            HostFolder.Remove(folder);
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"the state folder {folder} cannot be removed; remove it by hand ({e.Message})", e);
        }
    }

    private SafeFd Lock()
    {
        try
        {
            SafeFd fd = SafeFd.From(Libc.open(_root, Libc.O_RDONLY | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0), "open", _root);
            int result;
            do
            {
                result = Libc.flock(fd.Value, Libc.LOCK_EX);
            }
            while (Check.Retry(result));
            Check.Result(result, "flock", _root);
            return fd;
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"the state folder cannot be locked: {e.Message}", e);
        }
    }
}
