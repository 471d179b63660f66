using System.Globalization;
using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Sandbox.Vm;
using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Sandbox.Templates;

/// <summary>
/// The templates of this host: a folder each, named by its key, with the files of a snapshot and the key's text. They are made beside
/// their place and renamed, so that a folder with a name is whole.
/// </summary>
public sealed class TemplateStore
{
    /// <summary>Where they are.</summary>
    public const string DefaultFolder = "/var/lib/microvm/templates";

    /// <summary>Environment variable that names another folder.</summary>
    public const string FolderVariable = "MICROVM_TEMPLATES";

    internal const string StateFile = "state", MemoryFileName = "memory", KeyFile = "key", PagesFile = "pages";
    /// <summary>Files that count the failures of <see cref="BackgroundTemplate"/>, by the template's name.</summary>
    internal const string FailuresPrefix = ".failed-";

    private const string NewPrefix = ".new-";
    private const uint FolderMode = 0b111_000_000;
    private const int MaxKey = 4096;
    private readonly string _folder;

    /// <summary>The templates of a folder, which need not exist.</summary>
    public TemplateStore(string? folder = null) =>
        _folder = folder ?? (Environment.GetEnvironmentVariable(FolderVariable) is { Length: > 0 } named ? Path.GetFullPath(named) : DefaultFolder);

    /// <summary>Where these are.</summary>
    internal string Folder => _folder;

    /// <summary>Every template, by name.</summary>
    /// <exception cref="SandboxException">The folder cannot be read.</exception>
    public IReadOnlyList<TemplateInfo> List()
    {
        if (!Directory.Exists(_folder))
        {
            return [];
        }

        List<TemplateInfo> found = [];
        foreach (string path in Directory.GetDirectories(_folder).Order(StringComparer.Ordinal))
        {
            string name = Path.GetFileName(path);
            if (!name.StartsWith(NewPrefix, StringComparison.Ordinal))
            {
                found.Add(Describe(name));
            }
        }

        return found;
    }

    /// <summary>Reads all of a template, and compares the checksums.</summary>
    /// <exception cref="SandboxException">There is no such template, it is damaged, or others may write to it.</exception>
    public void Verify(string name)
    {
        try
        {
            using Template template = Open(name);
            SnapshotMemory.Verify(template.Memory, ReadState(template.State).Header);
            if (template.Pages is { } pages)
            {
                _ = PageSet.Parse(HostFile.ReadToEnd(pages, PageSet.MaxLength, PagesFile));
            }
        }
        catch (Exception e) when (e is LinuxException or SnapshotException)
        {
            throw new SandboxException($"template {name}: {e.Message}", e);
        }
    }

    /// <summary>Removes a template. VMs that were started from it go on.</summary>
    /// <exception cref="SandboxException">There is no such template, or it cannot be removed.</exception>
    public void Delete(string name)
    {
        string path = PathOf(name);
        if (!Directory.Exists(path))
        {
            throw Missing(name);
        }

        // Out of the way first: nobody starts from half a template.
        string removed = NewFolderPath();
        if (Libc.rename(path, removed) < 0)
        {
            throw new SandboxException($"template {name} cannot be removed: {LinuxException.Text(Check.LastErrno)}");
        }

        Remove(removed, $"template {name}");
    }

    /// <summary>Opens the template of a key; null when there is none.</summary>
    /// <exception cref="SandboxException">Others may write to it, or it cannot be opened.</exception>
    internal Template? TryOpen(TemplateKey key)
    {
        if (!Directory.Exists(PathOf(key.Name)))
        {
            return null;
        }

        try
        {
            return Open(key.Name);
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"template {key.Name}: {e.Message}", e);
        }
    }

    /// <summary>
    /// Removes the templates from which no VM starts any more, what makers that were killed left, and the counts of failures: what failed in
    /// the background is tried again.
    /// </summary>
    /// <returns>The names of these templates.</returns>
    /// <exception cref="SandboxException">One cannot be removed.</exception>
    public IReadOnlyList<string> DeleteOutdated()
    {
        IReadOnlyList<string> names = DeleteOutdatedTemplates();
        DeleteAbandoned();
        foreach (string file in Directory.Exists(_folder) ? Directory.GetFiles(_folder, FailuresPrefix + "*") : [])
        {
            File.Delete(file);
        }

        return names;
    }

    /// <summary>Removes the templates from which no VM starts any more.</summary>
    /// <returns>Their names.</returns>
    /// <exception cref="SandboxException">One cannot be removed.</exception>
    internal IReadOnlyList<string> DeleteOutdatedTemplates()
    {
        string[] names = [.. List().Where(t => t.IsOutdated).Select(t => t.Name)];
        foreach (string name in names)
        {
            Delete(name);
        }

        return names;
    }

    /// <summary>Removes what makers that were killed left.</summary>
    /// <exception cref="SandboxException">It cannot be removed.</exception>
    internal void DeleteAbandoned()
    {
        foreach (string path in Directory.Exists(_folder) ? Directory.GetDirectories(_folder, NewPrefix + "*") : [])
        {
            // The folder's name says who makes it, and its id may be another process's by now: such a folder stays for the next time.
            string maker = Path.GetFileName(path)[NewPrefix.Length..].Split('-')[0];
            if (!Directory.Exists("/proc/" + maker))
            {
                Remove(path, path);
            }
        }
    }

    /// <summary>Makes the folder of templates, unless it is there.</summary>
    /// <exception cref="LinuxException">It cannot be made.</exception>
    /// <exception cref="SandboxException">Others may write to it.</exception>
    internal void MakeFolder()
    {
        HostFile.MakeFolder(_folder, FolderMode);

        // Whoever may rename in there could put a link in the place of what is made next.
        OwnFile.OpenFolder(_folder).Dispose();
    }

    /// <summary>Makes a folder for a template that is being made.</summary>
    /// <exception cref="LinuxException">It cannot be made.</exception>
    /// <exception cref="SandboxException">Others may write to the folder of templates.</exception>
    internal string MakeNewFolder()
    {
        MakeFolder();
        string path = NewFolderPath();
        HostFile.MakeFolder(path, FolderMode);
        return path;
    }

    /// <summary>Gives a finished template its name; one that is there already is replaced.</summary>
    /// <exception cref="LinuxException">It cannot be renamed.</exception>
    internal void Publish(string newFolder, TemplateKey key)
    {
        string path = PathOf(key.Name);
        if (Directory.Exists(path))
        {
            Delete(key.Name);
        }

        Check.Result(Libc.rename(newFolder, path), "rename", path);
    }

    private static SnapshotFile ReadState(SafeFd state) =>
        SnapshotFile.Parse(HostFile.ReadToEnd(state, SnapshotFormat.MaxLength, StateFile));

    private static void Remove(string folder, string what)
    {
        try
        {
            Directory.Delete(folder, recursive: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new SandboxException($"{what} cannot be removed: {e.Message}", e);
        }
    }

    private static SandboxException Missing(string name) => new($"there is no template {name} (microvm template list)");

    private string NewFolderPath() =>
        Path.Combine(_folder, string.Create(CultureInfo.InvariantCulture, $"{NewPrefix}{Environment.ProcessId}-{Environment.TickCount64}"));

    private string PathOf(string name) => name.Length > 0 && name[0] != '.' && !name.Contains('/', StringComparison.Ordinal)
        ? Path.Combine(_folder, name)
        : throw new SandboxException($"\"{name}\" is not the name of a template");

    private Template Open(string name)
    {
        string path = PathOf(name);
        if (!Directory.Exists(path))
        {
            throw Missing(name);
        }

        using SafeFd all = OwnFile.OpenFolder(_folder);
        using SafeFd folder = OwnFile.Open(all, name, Libc.O_PATH | Libc.O_DIRECTORY, path);
        SafeFd state = OwnFile.Open(folder, StateFile, Libc.O_RDONLY, Path.Combine(path, StateFile));
        try
        {
            SafeFd? pages = TryOpenPages(folder, path);
            try
            {
                return new Template(name, path, state, OwnFile.Open(folder, MemoryFileName, Libc.O_RDONLY, Path.Combine(path, MemoryFileName)), pages);
            }
            catch
            {
                pages?.Dispose();
                throw;
            }
        }
        catch
        {
            state.Dispose();
            throw;
        }
    }

    // It makes starts faster, and is not needed.
    private static SafeFd? TryOpenPages(SafeFd folder, string path)
    {
        try
        {
            return OwnFile.Open(folder, PagesFile, Libc.O_RDONLY, Path.Combine(path, PagesFile));
        }
        catch (LinuxException e) when (e.Errno == Errno.ENOENT)
        {
            return null;
        }
    }

    private TemplateInfo Describe(string name)
    {
        try
        {
            using Template template = Open(name);
            string key = Encoding.UTF8.GetString(HostFile.ReadAllBytes(Path.Combine(PathOf(name), KeyFile), MaxKey));
            SnapshotHeader header = ReadState(template.State).Header;
            string? outdated = TemplateKey.Outdated(key, RuntimeFiles.Locate());
            return new TemplateInfo(name, header, key, outdated) { IsOutdated = outdated is not null };
        }
        catch (Exception e) when (e is SandboxException or LinuxException or SnapshotException)
        {
            return new TemplateInfo(name, null, "", e.Message);
        }
    }
}
