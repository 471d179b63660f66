using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Sandbox.Templates;

namespace MicroVm.Sandbox.Tests.Templates;

/// <summary>When a template is made that nobody asked for by hand.</summary>
public sealed class BackgroundTemplateTests : IDisposable
{
    private const string Name = "0123456789abcdef";
    private readonly TempFolder _folder = new();
    private readonly string _templates;

    public BackgroundTemplateTests()
    {
        _templates = Path.Combine(_folder.Path, "templates");
        RequireRoom();
    }

    public void Dispose() => _folder.Dispose();

    [SkippableFact]
    public void What_is_missing_is_made_once()
    {
        Assert.Equal((Name, null), Make());
        Assert.Equal((null, $"template {Name} is there"), Make());
        Assert.Equal([".lock"], Directory.GetFiles(_templates).Select(Path.GetFileName));
    }

    [SkippableFact]
    public void One_process_makes_templates_at_a_time()
    {
        (string? Name, string? Reason) second = default;
        Assert.Equal((Name, null), new BackgroundTemplate(_templates).Make(Name, () =>
        {
            second = new BackgroundTemplate(_templates).Make("another", () => throw new InvalidOperationException("made"));
            return Publish();
        }));
        Assert.Equal((null, "another process makes one"), second);
    }

    [SkippableFact]
    public void What_failed_three_times_is_not_tried_again_until_it_is_asked_for()
    {
        int tries = 0;
        string Fail()
        {
            tries++;
            throw new SandboxException("no");
        }

        for (int i = 0; i < BackgroundTemplate.MostFailures; i++)
        {
            Assert.Throws<SandboxException>(() => new BackgroundTemplate(_templates).Make(Name, Fail));
        }

        Assert.StartsWith("it failed 3 times", new BackgroundTemplate(_templates).Make(Name, Fail).Reason, StringComparison.Ordinal);
        Assert.Equal(BackgroundTemplate.MostFailures, tries);
        new TemplateStore(_templates).DeleteOutdated();
        Assert.Equal((Name, null), Make());
        Assert.Equal([".lock"], Directory.GetFiles(_templates).Select(Path.GetFileName));
    }

    /// <summary>A maker that is killed has counted its attempt, and left a folder, which the next one removes.</summary>
    [SkippableFact]
    public void A_killed_maker_counts_and_leaves_nothing_for_good()
    {
        Directory.CreateDirectory(Path.Combine(_templates, ".new-0-1", "vm"));
        File.SetUnixFileMode(_templates, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        string[] during = [];
        new BackgroundTemplate(_templates).Make(Name, () =>
        {
            during = [.. Directory.GetFileSystemEntries(_templates).Select(p => Path.GetFileName(p)).Order(StringComparer.Ordinal)];
            return Publish();
        });
        Assert.Equal([".failed-" + Name, ".lock"], during);
    }

    [SkippableFact]
    public void There_are_no_more_than_a_few()
    {
        for (int i = 0; i < BackgroundTemplate.MostTemplates; i++)
        {
            Directory.CreateDirectory(Path.Combine(_templates, $"template{i}"));
        }

        File.SetUnixFileMode(_templates, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        Assert.Equal((null, "there are 8 templates already"), Make());
        Directory.Delete(Path.Combine(_templates, "template0"));
        Assert.Equal((Name, null), Make());
    }

    private (string? Name, string? Reason) Make() => new BackgroundTemplate(_templates).Make(Name, Publish);

    private string Publish()
    {
        Directory.CreateDirectory(Path.Combine(_templates, Name));
        return Name;
    }

    private unsafe void RequireRoom()
    {
        using SafeFd folder = SafeFd.From(Libc.open(_folder.Path, Libc.O_PATH | Libc.O_CLOEXEC, 0), "open", _folder.Path);
        Libc.statfs_t stat;
        Check.Result(Libc.fstatfs(folder.Value, &stat), "fstatfs");
        Skip.If(stat.f_bavail * (ulong)stat.f_bsize < BackgroundTemplate.LeastFree, "less than 1 GiB is free in the folder of temporary files: making templates was NOT tested");
    }
}
