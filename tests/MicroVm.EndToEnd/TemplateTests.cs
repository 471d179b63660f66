using System.Globalization;
using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>VMs that start from a template: they are what booted ones are, no two are the same, and a template that is not right is refused.</summary>
public sealed class TemplateTests : IDisposable
{
    private const string Memory = "200";

    // What a clone's clock may be wrong by.
    private const long ClockNanoseconds = 5_000_000;
    private readonly string _folder = Directory.CreateTempSubdirectory("microvm-templates-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [SkippableFact]
    public void AVmFromATemplateRunsAContainer()
    {
        Installation.RequireKvm();
        string name = Create();
        Assert.Matches($@"^{name} +{Memory} MiB +1 +[0-9]+ MiB +[0-9T:Z-]+\n$", Call("template", "list").StandardOutput.Split('\n', 2)[1]);
        Assert.Equal($"{name}: ok\n", Call("template", "verify").StandardOutput);
        string inspected = Call("snapshot", "inspect", Path.Combine(_folder, name, "state")).StandardOutput;
        Assert.Matches($@"\nmemory: +{Memory} MiB, of which [0-9]+ KiB are saved\n", inspected);
        Assert.Contains("\nvcpu0 ", inspected, StringComparison.Ordinal);

        using Bundle bundle = Bundle.Create("cat; echo to stderr >&2; ls /etc | wc -l; sleep 0.2; exit 7");
        for (int i = 0; i < 3; i++)
        {
            CommandResult run = Run(bundle, "some input\n");
            Assert.True(run.ExitCode == 7, run.ToString());
            Assert.StartsWith("some input\n", run.StandardOutput, StringComparison.Ordinal);
            Assert.Contains("to stderr", run.StandardError, StringComparison.Ordinal);
            Assert.Contains($"the VM starts from template {name}", run.StandardError, StringComparison.Ordinal);
        }

        // What a maker left that was killed, and a template of a runtime before this one.
        Directory.CreateDirectory(Path.Combine(_folder, ".new-0-1"));
        string old = Path.Combine(_folder, "0123456789abcdef");
        Shell.Run("cp", "-a", Path.Combine(_folder, name), old).EnsureSuccess();
        File.WriteAllText(Path.Combine(old, "key"), "boot an earlier one\n" + File.ReadAllText(Path.Combine(_folder, name, "key")).Replace("boot ", "boat ", StringComparison.Ordinal));
        Assert.Contains("outdated, no VM starts from it: boot changed", Call("template", "list").StandardOutput, StringComparison.Ordinal);
        Assert.Equal("0123456789abcdef\n", Call("template", "delete", "--outdated").StandardOutput);
        Assert.Equal([Path.Combine(_folder, name)], Directory.GetDirectories(_folder));

        // --no-template overrules the configuration file, another size boots.
        string file = Path.Combine(_folder, "config.toml");
        File.WriteAllText(file, $"memory = {Memory}\ntemplate = true\n");
        Assert.Contains($"the VM starts from template {name}", Run(bundle, "", "--config", file).StandardError, StringComparison.Ordinal);
        Assert.DoesNotContain("the VM starts from template", Run(bundle, "", "--config", file, "--no-template").StandardError, StringComparison.Ordinal);
        CommandResult other = Run(bundle, "", "--template", "--vm-memory", "220");
        Assert.True(other.ExitCode == 7, other.ToString());
        Assert.Contains("the VM boots: there is no template", other.StandardError, StringComparison.Ordinal);
        Call("template", "delete", name);
        Assert.Equal("", Call("template", "list", "--quiet").StandardOutput);
        Assert.Equal(7, Run(bundle, "").ExitCode);
    }

    /// <summary>
    /// A container is tried before the VM is saved, and the pages that starts write are known. Another container has the mounts, cgroups and interfaces
    /// that it has in a VM that was booted.
    /// </summary>
    [SkippableFact]
    public void NothingOfTheTrialContainerIsSeen()
    {
        Installation.RequireKvm();
        string name = Create();
        Assert.True(new FileInfo(Path.Combine(_folder, name, "pages")).Length > 12);
        Assert.Equal(["key", "memory", "pages", "state"], Directory.GetFileSystemEntries(Path.Combine(_folder, name)).Select(p => Path.GetFileName(p)!).Order(StringComparer.Ordinal));
        using Bundle bundle = Bundle.Create("cut -d' ' -f4- /proc/self/mountinfo; ls /sys/fs/cgroup /dev; cat /proc/net/dev");
        CommandResult booted = Run(bundle, "", "--no-template", "--vm-memory", Memory), started = Run(bundle, "");
        Assert.Contains("the VM starts from template", started.StandardError, StringComparison.Ordinal);
        Assert.Contains("\n/ /proc ", started.StandardOutput, StringComparison.Ordinal);
        Assert.Equal(booted.StandardOutput, started.StandardOutput);
    }

    /// <summary>Each VM gives the numbers of many processes; MICROVM_CLONES for more VMs.</summary>
    [SkippableFact]
    public void NoTwoVmsFromATemplateAreTheSame()
    {
        Installation.RequireKvm();
        Create();
        using Bundle bundle = Bundle.Create("hostname; exec /bin/clone-identity 40");
        bundle.AddGuestProgram("clone-identity");
        foreach (string set in (string[])["bounding", "effective", "permitted"])
        {
            bundle.Process["capabilities"]![set] = new JsonArray("CAP_NET_ADMIN");
        }

        int clones = int.TryParse(Environment.GetEnvironmentVariable("MICROVM_CLONES"), CultureInfo.InvariantCulture, out int n) ? n : 8;
        HashSet<string> seen = [];
        for (int i = 0; i < clones; i++)
        {
            bundle.Config["hostname"] = $"clone-{i}";
            long before = Now();
            CommandResult run = Run(bundle, "");
            long after = Now();
            Assert.True(run.ExitCode == 0, run.ToString());
            Assert.Contains("the VM starts from template", run.StandardError, StringComparison.Ordinal);
            string[] lines = run.StandardOutput.Split('\n', StringSplitOptions.RemoveEmptyEntries);
            Assert.Equal($"clone-{i}", lines[0]);
            Assert.InRange(long.Parse(lines[1]["time ".Length..], CultureInfo.InvariantCulture), before - ClockNanoseconds, after + ClockNanoseconds);
            Assert.Equal(2 + 1 + 4 + (3 * 40), lines.Length);
            Assert.DoesNotContain(lines[2..], line => !seen.Add(line));
        }
    }

    [SkippableFact]
    public void ATemplateThatIsNotRightIsRefusedWithOneSentence()
    {
        Installation.RequireKvm();
        string name = Create();
        string state = Path.Combine(_folder, name, "state"), memory = Path.Combine(_folder, name, "memory");
        using Bundle bundle = Bundle.Create("echo ran");
        byte[] good = File.ReadAllBytes(state);

        File.SetUnixFileMode(state, UnixFileMode.UserRead | UnixFileMode.GroupWrite);
        Assert.Contains($"{state} is not used: it belongs to user 0 with mode 420", Refused(bundle), StringComparison.Ordinal);
        File.SetUnixFileMode(state, UnixFileMode.UserRead | UnixFileMode.UserWrite);

        byte[] damaged = [.. good];
        damaged[^100] ^= 1;
        File.WriteAllBytes(state, damaged);
        Assert.Contains($"snapshot {state}: the file is damaged: the checksum of the section", Refused(bundle), StringComparison.Ordinal);
        File.WriteAllBytes(state, good[..^1]);
        Assert.Contains("the file is damaged", Refused(bundle), StringComparison.Ordinal);
        File.WriteAllBytes(state, good);

        string pages = Path.Combine(_folder, name, "pages");
        byte[] set = File.ReadAllBytes(pages);
        File.WriteAllBytes(pages, set[..^1]);
        Assert.Contains("the file of pages has", Refused(bundle), StringComparison.Ordinal);
        Assert.Contains("the file of pages has", Shell.Run("env", Variable, Installation.Runtime, "template", "verify", name).StandardError, StringComparison.Ordinal);
        File.WriteAllBytes(pages, set);

        using (FileStream file = File.Open(memory, FileMode.Open))
        {
            file.Position = 0x100_0000;
            file.WriteByte(0x5a);
        }

        CommandResult verified = Shell.Run("env", Variable, Installation.Runtime, "template", "verify", name);
        Assert.Equal(1, verified.ExitCode);
        Assert.Contains("the memory file is damaged or of another snapshot", verified.StandardError, StringComparison.Ordinal);
        using (FileStream file = File.Open(memory, FileMode.Open))
        {
            file.SetLength(4096);
        }

        Assert.Contains("the memory file has 4096 bytes", Refused(bundle), StringComparison.Ordinal);
        Call("template", "delete", name);
        Assert.Equal("ran\n", Run(bundle, "").StandardOutput);
    }

    private static long Now() => (DateTime.UtcNow - DateTime.UnixEpoch).Ticks * 100;

    private string Variable => $"MICROVM_TEMPLATES={_folder}";

    private string Create() => Call("template", "create", "--vm-memory", Memory).StandardOutput.TrimEnd();

    private CommandResult Call(params string[] arguments) => Shell.Run("env", [Variable, Installation.Runtime, .. arguments]).EnsureSuccess();

    private CommandResult Run(Bundle bundle, string input, params string[] flags)
    {
        bundle.Save();
        string root = Directory.CreateTempSubdirectory("microvm-root-").FullName;
        try
        {
            return Shell.RunWith(input, "env",
                [Variable, Installation.Runtime, "--root", root, "--debug", .. (string[])(flags.Length == 0 ? ["--template", "--vm-memory", Memory] : flags),
                    "run", "--bundle", bundle.Path, $"e2e-{Guid.NewGuid():N}"[..20]]);
        }
        finally
        {
            Directory.Delete(root, recursive: true);
        }
    }

    private string Refused(Bundle bundle)
    {
        CommandResult run = Run(bundle, "");
        Assert.True(run.ExitCode == 1, run.ToString());
        Assert.DoesNotContain("ran", run.StandardOutput, StringComparison.Ordinal);
        return run.StandardError;
    }
}
