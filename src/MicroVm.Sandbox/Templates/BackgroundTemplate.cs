using System.Globalization;
using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Sandbox.Templates;

/// <summary>
/// Makes templates that nobody asked for by hand: one at a time on a host, a few in all, with room left on the disk, and after
/// <see cref="MostFailures"/> failures not again until the runtime's files or the host's boot are others.
/// </summary>
public sealed unsafe class BackgroundTemplate
{
    /// <summary>How many templates there may be.</summary>
    public const int MostTemplates = 8;

    /// <summary>How often one is tried.</summary>
    public const int MostFailures = 3;

    /// <summary>Bytes that must be free where templates are.</summary>
    public const ulong LeastFree = 1 << 30;

    private const string LockFile = ".lock";
    private const uint FileMode = 0b110_000_000;
    private const int MaxCount = 16;
    private const int StackBytes = 256 << 10;
    private readonly string _folder;
    private readonly TemplateStore _store;

    /// <summary>For the templates of a folder; null for the usual one.</summary>
    internal BackgroundTemplate(string? folder = null)
    {
        _store = new TemplateStore(folder);
        _folder = _store.Folder;
    }

    /// <summary>Makes the template of a VM's size, unless there is a reason not to.</summary>
    /// <param name="shape">The size.</param>
    /// <param name="timeout">How long the guest may take to boot.</param>
    /// <returns>Its name, or why it was not made.</returns>
    /// <exception cref="SandboxException">It cannot be made.</exception>
    public static (string? Name, string? Reason) Make(VmShape shape, TimeSpan timeout)
    {
        ArgumentNullException.ThrowIfNull(shape);
        try
        {
            return TemplateKey.Of(RuntimeFiles.Locate(), shape) is { } key
                ? new BackgroundTemplate().Make(key.Name, () => TemplateMaker.Create(shape, timeout))
                : (null, "such a VM always boots");
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"the template cannot be made: {e.Message}", e);
        }
    }

    /// <summary>The same on a thread of this process, which does not wait for its end: a maker that ends in the middle leaves what the next one removes.</summary>
    internal static void Begin(VmShape shape, TimeSpan timeout, Action<LogLevel, string> log) => new Thread(
        () =>
        {
            try
            {
                (string? name, string? reason) = Make(shape, timeout);
                log(LogLevel.Debug, name is null ? $"no template is made: {reason}" : $"template {name} was made");
            }
            catch (SandboxException e)
            {
                log(LogLevel.Warning, e.Message);
            }
        }, StackBytes)
    { IsBackground = true, Name = "template" }.Start();

    /// <summary>The rules, for a template of this name.</summary>
    /// <exception cref="SandboxException">What <paramref name="make"/> throws, or others may write to the folder.</exception>
    /// <exception cref="LinuxException">The folder, or a file in it, cannot be made.</exception>
    internal (string? Name, string? Reason) Make(string name, Func<string> make)
    {
        _store.MakeFolder();
        string path = Path.Combine(_folder, LockFile);
        using SafeFd held = SafeFd.From(Libc.open(path, Libc.O_RDWR | Libc.O_CREAT | Libc.O_CLOEXEC | Libc.O_NOFOLLOW, FileMode), "open", path);
        if (Libc.flock(held.Value, Libc.LOCK_EX | Libc.LOCK_NB) < 0)
        {
            return (null, "another process makes one");
        }

        if (Directory.Exists(Path.Combine(_folder, name)))
        {
            return (null, $"template {name} is there");
        }

        string failures = Path.Combine(_folder, TemplateStore.FailuresPrefix + name);
        int failed = ReadCount(failures);
        if (failed >= MostFailures)
        {
            return (null, $"it failed {failed} times (microvm template create tells why, microvm template delete --outdated has it tried again)");
        }

        _store.DeleteAbandoned();
        if (WhyNoRoom() is { } reason)
        {
            return (null, reason);
        }

        // Before the attempt: one that is killed is a failure, too.
        HostFile.Replace(failures, Encoding.ASCII.GetBytes((failed + 1).ToString(CultureInfo.InvariantCulture)), FileMode);
        string made = make();
        File.Delete(failures);
        return (made, null);
    }

    private string? WhyNoRoom()
    {
        if (_store.List().Count >= MostTemplates)
        {
            _ = _store.DeleteOutdatedTemplates();
        }

        if (_store.List().Count is >= MostTemplates and var count)
        {
            return $"there are {count} templates already";
        }

        using SafeFd folder = OwnFile.OpenFolder(_folder);
        Libc.statfs_t stat;
        Check.Result(Libc.fstatfs(folder.Value, &stat), "fstatfs", _folder);
        ulong free = stat.f_bavail * (ulong)stat.f_bsize;
        return free < LeastFree ? $"the file system of {_folder} has {free >> 20} MiB free, of which {LeastFree >> 20} must stay" : null;
    }

    private static int ReadCount(string path) =>
        HostFile.TryReadAllBytes(path, MaxCount, out _) is { } bytes && int.TryParse(Encoding.ASCII.GetString(bytes), NumberStyles.None, CultureInfo.InvariantCulture, out int count) ? count : 0;
}
