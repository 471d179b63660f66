using System.Diagnostics;
using System.Globalization;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>
/// Random file operations by two containers and the host on one tree, which the containers see through two exports, against a plain
/// folder as the model: each batch gives what the same batch gives there, and the trees are equal to all who look.
/// MICROVM_MODEL_SECONDS sets for how long (make test-long), MICROVM_MODEL_SEED repeats a run.
/// </summary>
public sealed class SharedModelTests
{
    private const int UsualSeconds = 8;
    private const int BatchLength = 24;
    private static readonly string[] Names = ["a", "b", "c", "d", "d/e", "d/f", "d/g", "g", "g/h"];

    [SkippableFact]
    public void ATreeThatSeveralChangeIsWhatTheModelIs()
    {
        Installation.RequireRuntime();
        int seed = Number("MICROVM_MODEL_SEED") ?? Random.Shared.Next(), seconds = Number("MICROVM_MODEL_SECONDS") ?? UsualSeconds;
        Random random = new(seed);
        string folder = Directory.CreateTempSubdirectory("microvm-model-").FullName;
        try
        {
            string tree = Directory.CreateDirectory(Path.Combine(folder, "tree")).FullName, model = Directory.CreateDirectory(Path.Combine(folder, "model")).FullName;
            foreach (string root in (string[])[tree, model])
            {
                Directory.CreateDirectory(Path.Combine(root, "sub"));
                File.WriteAllText(Path.Combine(root, "lock"), "");
            }

            string programs = "";
            void Configure(Bundle bundle)
            {
                programs = Path.Combine(bundle.Rootfs, "bin");
                bundle.AddGuestProgram("lock-probe");
                bundle.AddMount("/vol", tree, "bind", "rbind", "rw");
                bundle.AddMount("/part", Path.Combine(tree, "sub"), "bind", "rbind", "rw");
            }

            using GuestShell a = GuestShell.Start(Configure);
            using GuestShell b = GuestShell.Start(Configure);
            (string Name, Func<string, string> Run)[] actors =
            [
                ("a", line => a.Try($"cd /vol; {line}").Output), ("b", line => b.Try($"cd /vol; {line}").Output), ("host", line => OnHost(programs, tree, line)),
            ];
            Stopwatch watch = Stopwatch.StartNew();
            for (int round = 0; watch.Elapsed.TotalSeconds < seconds; round++)
            {
                (string name, Func<string, string> run) = actors[random.Next(actors.Length)];
                string where = $"seed {seed}, round {round}, {name}";
                string batch = string.Join("; ", Enumerable.Range(0, BatchLength).Select(_ => Operation(random)));

                // A lock orders what its holders do: what was learnt before it is asked for again.
                string expected = OnHost(programs, model, batch.Replace("@SUB@", "sub", StringComparison.Ordinal));
                string sub = name != "host" && random.Next(2) == 0 ? "/part" : "sub";
                string got = run($"lock-probe try flock lock w >/dev/null; {batch.Replace("@SUB@", sub, StringComparison.Ordinal)}");
                Assert.Equal(
                    (where, batch, expected.Replace("sub/", "", StringComparison.Ordinal)),
                    (where, batch, got.Replace("sub/", "", StringComparison.Ordinal).Replace("/part/", "", StringComparison.Ordinal)));
                string look = actors[random.Next(actors.Length)].Run("lock-probe try flock lock w >/dev/null; " + Listing);
                Assert.Equal((where, batch, OnHost(programs, model, Listing)), (where, batch, look));
            }

            a.End();
            b.End();
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    // Type, mode, links, size and contents of everything, in order; a folder's size is its file system's own affair.
    private const string Listing =
        "find . ! -type d ! -name lock | sort | while read -r f; do stat -c '%F %a %h %s %n' \"$f\"; if [ -L \"$f\" ]; then readlink \"$f\"; else md5sum <\"$f\"; fi; done; find . -type d | sort | xargs stat -c '%a %h %n'";

    private static string Operation(Random random)
    {
        // Both names by one way: between two mounts there is no rename.
        string way = random.Next(2) == 0 ? "" : "@SUB@/";
        string one = way + Names[random.Next(Names.Length)], two = way + Names[random.Next(Names.Length)];
        int size = random.Next(20_000), seek = random.Next(30_000);
        string operation = random.Next(15) switch
        {
            0 or 1 => $"echo {size} >{one}",
            2 or 3 => $"echo {size} >>{one}",
            4 => $"head -c {size} /dev/zero | tr '\\0' {(char)('a' + (seek % 26))} | dd of={one} bs=4096 iflag=fullblock seek={seek} conv=notrunc oflag=seek_bytes",
            5 => $"truncate -s {size} {one}",
            6 or 7 => $"mv -T {one} {two}",
            8 => $"rm {one}",
            9 => $"mkdir {one}",
            10 => $"rmdir {one}",
            11 => $"ln {one} {two}",
            12 => $"ln -s {Names[random.Next(Names.Length)]} {one}",
            13 => $"chmod {(random.Next(2) == 0 ? "740" : "711")} {one}",
            _ => $"md5sum <{one}; stat -c '%F %a %h' {one}; ls {Path.GetDirectoryName(one)}",
        };
        return $"{{ {operation}; }} 2>/dev/null; echo $?";
    }

    private static string OnHost(string programs, string folder, string line) =>
        Shell.Run("env", "-i", $"PATH={programs}", Path.Combine(programs, "sh"), "-c", $"umask 022; cd {folder}; {line}").StandardOutput;

    private static int? Number(string variable) =>
        int.TryParse(Environment.GetEnvironmentVariable(variable), NumberStyles.None, CultureInfo.InvariantCulture, out int number) ? number : null;
}
