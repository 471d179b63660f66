using System.Diagnostics;
using MicroVm.EndToEnd.Support;
using MicroVm.Linux.Native;

namespace MicroVm.EndToEnd;

/// <summary><c>template = "background"</c>: the first start of a size boots and has a template made, the next ones start from it.</summary>
public sealed class BackgroundTemplateTests : IDisposable
{
    private const string Memory = "208";
    private readonly string _folder = Directory.CreateTempSubdirectory("microvm-background-").FullName;

    private string Templates => Path.Combine(_folder, "templates");

    public void Dispose()
    {
        // Makers outlive the commands that started them, and would make the folder again.
        foreach (int maker in Makers())
        {
            _ = Libc.kill(maker, Libc.SIGKILL);
            WaitFor(() => !Directory.Exists($"/proc/{maker}") || File.ReadAllText($"/proc/{maker}/stat").Contains(") Z", StringComparison.Ordinal), "the maker's end");
        }

        Directory.Delete(_folder, recursive: true);
    }

    [SkippableFact]
    public void TheFirstStartBootsAndTheNextOnesAreFromATemplate()
    {
        Installation.RequireKvm();
        string file = Path.Combine(_folder, "config.toml");
        File.WriteAllText(file, $"memory = {Memory}\ntemplate = \"background\"\n");
        using Bundle bundle = Bundle.Create("echo ran");
        CommandResult first = Run(bundle, file);
        Assert.Contains("the VM boots: there is no template", first.StandardError, StringComparison.Ordinal);
        WaitFor(() => Made().Length == 1 && Makers().Length == 0, "the template");
        Assert.Contains($"the VM starts from template {Made()[0]}", Run(bundle, file).StandardError, StringComparison.Ordinal);
        Assert.Empty(Makers());

        // Nothing but the template and the lock.
        Assert.Equal([".lock", Made()[0]], Directory.GetFileSystemEntries(Templates).Select(p => Path.GetFileName(p)!).Order(StringComparer.Ordinal));
    }

    [SkippableFact]
    public void AKilledMakerLeavesWhatTheNextOneRemoves()
    {
        Installation.RequireKvm();
        using (Process maker = Process.Start(new ProcessStartInfo("env", [$"MICROVM_TEMPLATES={Templates}", Installation.Runtime, "template", "create", "--background", "--vm-memory", Memory]))!)
        {
            WaitFor(() => Directory.Exists(Templates) && Directory.GetDirectories(Templates, ".new-*").Any(d => File.Exists(Path.Combine(d, "memory"))), "the maker's folder");
            CommandResult second = Create();
            Assert.Equal("no template is made: another process makes one\n", second.StandardOutput);
            maker.Kill();
            maker.WaitForExit();
        }

        Assert.Empty(Made());
        string name = Create().StandardOutput.TrimEnd();
        Assert.Equal([name], Made());
        Assert.Equal([".lock", name], Directory.GetFileSystemEntries(Templates).Select(p => Path.GetFileName(p)!).Order(StringComparer.Ordinal));
        Assert.Equal($"no template is made: template {name} is there\n", Create().StandardOutput);
    }

    private CommandResult Create() =>
        Shell.Run("env", $"MICROVM_TEMPLATES={Templates}", Installation.Runtime, "template", "create", "--background", "--vm-memory", Memory).EnsureSuccess();

    private CommandResult Run(Bundle bundle, string file)
    {
        bundle.Save();
        CommandResult run = Shell.Run("env", $"MICROVM_TEMPLATES={Templates}", Installation.Runtime, "--root", Path.Combine(_folder, "root"), "--debug", "--config", file,
            "run", "--bundle", bundle.Path, $"e2e-{Guid.NewGuid():N}"[..20]);
        Assert.True(run.ExitCode == 0 && run.StandardOutput == "ran\n", run.ToString());
        return run;
    }

    private string[] Made() => !Directory.Exists(Templates) ? [] : [.. Directory.GetDirectories(Templates).Select(p => Path.GetFileName(p)!).Where(n => n[0] != '.')];

    /// <summary>Processes that make templates in this test's folder.</summary>
    private int[] Makers() =>
    [
        .. Directory.GetDirectories("/proc").Select(d => int.TryParse(Path.GetFileName(d), out int pid) ? pid : 0).Where(pid => pid > 0 && Text(pid, "cmdline").Contains("template\0create\0--background", StringComparison.Ordinal)
            && Text(pid, "environ").Contains($"MICROVM_TEMPLATES={Templates}\0", StringComparison.Ordinal)),
    ];

    private static string Text(int pid, string file)
    {
        try
        {
            return File.ReadAllText($"/proc/{pid}/{file}");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }

    private static void WaitFor(Func<bool> what, string name)
    {
        long deadline = Environment.TickCount64 + (long)Installation.RunDeadline.TotalMilliseconds;
        while (!what())
        {
            Assert.True(Environment.TickCount64 < deadline, $"{name} did not come");
            Thread.Sleep(20);
        }
    }
}
