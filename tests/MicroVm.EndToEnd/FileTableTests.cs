using System.Globalization;
using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>
/// Some hundred operations on files, also on those that go while they are open, and a long random row of reads and writes, in a container's root and on a volume of each kind of
/// file system. What is right is what the host's kernel says when the same program works on the same file system without a container.
/// MICROVM_FSX_COUNT sets how many operations a row has (make test-long), MICROVM_FSX_SEED repeats one.
/// </summary>
public sealed class FileTableTests
{
    private const int UsualCount = 1500;

    // What the programs need beside the right to enter folders: owners, users, groups and set-id bits.
    private static readonly string[] Capabilities = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_SETGID", "CAP_SETUID", "CAP_KILL"];

    public static TheoryData<string> FileSystems => ["host", "tmpfs", "overlay"];

    [SkippableTheory]
    [MemberData(nameof(FileSystems))]
    public void EveryOperationSaysWhatItSaysOnTheHost(string fileSystem)
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("file-table /table; file-life /table; echo +; file-table /vol/table; file-life /vol/table");
        bundle.AddGuestProgram("file-table");
        bundle.AddGuestProgram("file-life");
        On(fileSystem, bundle, volume =>
        {
            string reference = Directory.CreateDirectory(Path.Combine(volume, "reference")).FullName;
            Directory.CreateDirectory(Path.Combine(volume, "table"));
            Directory.CreateDirectory(Path.Combine(bundle.Rootfs, "table"));
            string expected = string.Concat(((string[])["file-table", "file-life"]).Select(
                p => Shell.Run(Installation.GuestProgram(p), reference).EnsureSuccess().StandardOutput));
            Assert.True(expected.Split('\n').Length > 400, expected);
            CommandResult result = Container.Run(bundle).EnsureSuccess();
            string[] halves = result.StandardOutput.Split("+\n");
            Assert.Equal(2, halves.Length);
            Assert.Equal("", Differences(expected, halves[0], "the root"));
            Assert.Equal("", Differences(expected, halves[1], "the volume"));
        });
    }

    [SkippableTheory]
    [MemberData(nameof(FileSystems))]
    public void WhatIsReadIsWhatWasWrittenWhicheverWay(string fileSystem)
    {
        Installation.RequireRuntime();
        int seed = Number("MICROVM_FSX_SEED") ?? Random.Shared.Next(), count = Number("MICROVM_FSX_COUNT") ?? UsualCount;
        using Bundle bundle = Bundle.Create($"fsx {seed} {count} /fsx && fsx {seed} {count} /vol/fsx");
        bundle.AddGuestProgram("fsx");
        On(fileSystem, bundle, volume =>
        {
            string whole = $"same after {count}\n";
            CommandResult result = Container.Run(bundle);
            Assert.True(result.StandardOutput == whole + whole, $"seed {seed}: {result}");
            Assert.Equal(File.ReadAllBytes(Path.Combine(bundle.Rootfs, "fsx")), File.ReadAllBytes(Path.Combine(volume, "fsx")));
        });
    }

    // Root and volume on a file system of the kind.
    private static void On(string fileSystem, Bundle bundle, Action<string> run)
    {
        string volume = Directory.CreateDirectory(Path.Combine(bundle.Path, "vol")).FullName;
        string lower = Path.Combine(bundle.Path, "lower");
        string[] mounts = fileSystem switch
        {
            "tmpfs" =>
            [
                $"mount -t tmpfs none {volume}",
                $"mount -t tmpfs none {lower} && cp -a {bundle.Rootfs}/. {lower} && mount --move {lower} {bundle.Rootfs}",
            ],
            "overlay" => [Overlay(bundle, "r", bundle.Rootfs, bundle.Rootfs), Overlay(bundle, "v", lower, volume)],
            _ => [],
        };
        Directory.CreateDirectory(lower);
        JsonObject capabilities = bundle.Process["capabilities"]!.AsObject();
        foreach (string set in (string[])["bounding", "effective", "permitted"])
        {
            capabilities[set] = new JsonArray([.. Capabilities.Select(c => (JsonNode)c)]);
        }

        bundle.AddMount("/vol", volume, "bind", "rbind", "rw");
        try
        {
            foreach (string mount in mounts)
            {
                CommandResult mounted = Shell.Run("sh", "-c", mount);
                Skip.IfNot(mounted.ExitCode == 0, $"no {fileSystem} can be mounted here: {mounted}");
            }

            run(volume);
        }
        finally
        {
            foreach (string target in (string[])[volume, bundle.Rootfs, lower])
            {
                Shell.Run("umount", target);
            }
        }
    }

    private static string Overlay(Bundle bundle, string name, string lower, string target) =>
        $"cd {bundle.Path} && mkdir {name}u {name}w && mount -t overlay overlay -o lowerdir={lower},upperdir={name}u,workdir={name}w {target}";

    private static string Differences(string expected, string actual, string where)
    {
        string[] wanted = expected.Split('\n'), got = actual.Split('\n');
        IEnumerable<string> lines = wanted.Length == got.Length
            ? wanted.Zip(got).Where(p => p.First != p.Second).Select(p => $"{p.First} on the host, {p.Second} in {where}")
            : [$"{wanted.Length} lines on the host, {got.Length} in {where}, the last \"{got.LastOrDefault(l => l.Length > 0)}\""];
        return string.Join('\n', lines);
    }

    private static int? Number(string name) => int.TryParse(Environment.GetEnvironmentVariable(name), CultureInfo.InvariantCulture, out int n) ? n : null;
}
