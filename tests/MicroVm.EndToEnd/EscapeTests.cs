using System.Globalization;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>Ways out of a container's file systems, tried by a process with every right that a container can have: none leads to the host's files.</summary>
public sealed class EscapeTests
{
    private const string Secret = "what no container is shown";

    [SkippableFact]
    public void NoPathLeadsOut()
    {
        Installation.RequireKvm();
        string beside = Directory.CreateTempSubdirectory("microvm-escape-").FullName;
        try
        {
            string secret = Path.Combine(beside, "secret");
            File.WriteAllText(secret, Secret);
            using Bundle bundle = Bundle.Create("/bin/escape", secret, Secret);
            Prepare(bundle, beside, secret);
            CommandResult result = HostileRun.ToItsEnd(bundle);
            Assert.True(result.ExitCode == 0, result.ToString());
            Assert.DoesNotContain("ESCAPE", result.StandardOutput, StringComparison.Ordinal);
            Match tried = Regex.Match(result.StandardOutput, @"^tried (\d+), and (\d+)\n$");
            Assert.True(tried.Success, result.StandardOutput);
            Assert.InRange(int.Parse(tried.Groups[1].Value, CultureInfo.InvariantCulture), 200, int.MaxValue);
            Assert.NotEqual("0", tried.Groups[2].Value);

            Assert.Equal(Secret, File.ReadAllText(secret));
            Assert.Equal("kept", File.ReadAllText(Path.Combine(beside, "ro/f")));
            Assert.Equal(["ro", "secret", "v", "w"], Entries(beside));
            Assert.Equal(["f"], Entries(Path.Combine(beside, "ro")));
            Assert.Equal([], Entries(Path.Combine(beside, "w")));
            Assert.DoesNotContain("hard", Entries(Path.Combine(beside, "v")));

            // Nodes are kept in attributes: where the file system has none, they are not made at all.
            string nodes = Shell.Run("stat", "-c", "%F", Path.Combine(beside, "v/block"), Path.Combine(beside, "v/mem")).StandardOutput;
            Assert.Equal(Installation.KeepsUserAttributes(beside) ? "regular empty file\nregular empty file\n" : "", nodes);
        }
        finally
        {
            Directory.Delete(beside, recursive: true);
        }
    }

    private static void Prepare(Bundle bundle, string beside, string secret)
    {
        string up = string.Join('/', Enumerable.Repeat("..", 20));
        foreach (string volume in (string[])["v", "w", "ro"])
        {
            Directory.CreateDirectory(Path.Combine(beside, volume));
            bundle.AddMount($"/{volume}", Path.Combine(beside, volume), "bind", volume == "ro" ? ["rbind", "ro"] : ["rbind"]);
        }

        File.WriteAllText(Path.Combine(beside, "ro/f"), "kept");
        File.WriteAllText(Path.Combine(beside, "v/f"), "a file");
        Directory.CreateDirectory(Path.Combine(beside, "v/d"));
        File.CreateSymbolicLink(Path.Combine(beside, "v/out"), "../secret");
        File.CreateSymbolicLink(Path.Combine(beside, "v/up"), "..");
        File.CreateSymbolicLink(Path.Combine(beside, "v/dirup"), up);
        File.CreateSymbolicLink(Path.Combine(bundle.Rootfs, "abs"), secret);
        File.CreateSymbolicLink(Path.Combine(bundle.Rootfs, "rel"), up + secret);
        File.CreateSymbolicLink(Path.Combine(bundle.Rootfs, "up"), up);

        // A link of the image where a volume is to be mounted: followed within the image.
        File.CreateSymbolicLink(Path.Combine(bundle.Rootfs, "linked"), up + beside);
        bundle.AddMount("/linked/inside", Path.Combine(beside, "ro"), "bind", "rbind", "ro");
        bundle.AddGuestProgram("escape");
        foreach (string set in (string[])["bounding", "effective", "permitted"])
        {
            bundle.Process["capabilities"]![set] = new JsonArray(
                "CAP_SYS_ADMIN", "CAP_DAC_READ_SEARCH", "CAP_DAC_OVERRIDE", "CAP_MKNOD", "CAP_FOWNER", "CAP_SYS_PTRACE", "CAP_SYS_CHROOT", "CAP_SYS_RAWIO");
        }

        bundle.Linux["resources"]!["devices"] = new JsonArray(new JsonObject { ["allow"] = true, ["access"] = "rwm" });
        bundle.Linux["maskedPaths"] = new JsonArray();
        bundle.Linux["readonlyPaths"] = new JsonArray();
    }

    private static string[] Entries(string folder) =>
        [.. Directory.EnumerateFileSystemEntries(folder).Select(p => Path.GetFileName(p)!).Order(StringComparer.Ordinal)];
}
