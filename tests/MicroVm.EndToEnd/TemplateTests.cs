using System.Globalization;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>VMs that start from a template: they are what booted ones are, no two are the same, and a template that is not right is refused.</summary>
public sealed class TemplateTests : IDisposable
{
    private const string Memory = "200";
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

        // Another size boots.
        CommandResult other = Run(bundle, "", "--vm-memory", "220");
        Assert.True(other.ExitCode == 7, other.ToString());
        Assert.Contains("the VM boots: there is no template", other.StandardError, StringComparison.Ordinal);
        Call("template", "delete", name);
        Assert.Equal("", Call("template", "list", "--quiet").StandardOutput);
        Assert.Equal(7, Run(bundle, "").ExitCode);
    }

    [SkippableFact]
    public void NoTwoVmsFromATemplateAreTheSame()
    {
        Installation.RequireKvm();
        Create();
        using Bundle bundle = Bundle.Create(
            "date +%s; uptime_=$(cat /proc/uptime); cat /proc/sys/kernel/random/uuid; head -c 16 /dev/urandom | od -An -tx1; od -An -tx1 /proc/self/auxv | head -c 4000 >/dev/null; cat /proc/sys/kernel/random/boot_id >/dev/null; hostname");
        HashSet<string> seen = [];
        for (int i = 0; i < 5; i++)
        {
            bundle.Config["hostname"] = $"clone-{i}";
            bundle.Save();
            long before = DateTimeOffset.UtcNow.ToUnixTimeSeconds();
            CommandResult run = Run(bundle, "");
            Assert.True(run.ExitCode == 0, run.ToString());
            Assert.Contains("the VM starts from template", run.StandardError, StringComparison.Ordinal);
            string[] lines = run.StandardOutput.Split('\n', StringSplitOptions.RemoveEmptyEntries);
            Assert.Equal(4, lines.Length);
            Assert.InRange(long.Parse(lines[0], CultureInfo.InvariantCulture), before, DateTimeOffset.UtcNow.ToUnixTimeSeconds());
            Assert.True(seen.Add(lines[1]) && seen.Add(lines[2]), $"{lines[1]} or {lines[2]} was seen before");
            Assert.Equal($"clone-{i}", lines[3]);
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
                [Variable, Installation.Runtime, "--root", root, "--debug", "--template", .. (string[])(flags.Length == 0 ? ["--vm-memory", Memory] : flags),
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
