using System.Globalization;
using MicroVm.EndToEnd.Support;
using MicroVm.Linux.Native;

namespace MicroVm.EndToEnd;

/// <summary>
/// kill -9 of the VMM in the middle of file work in a shared folder, round after round: what the host then has is whole, and the
/// container's locks are gone. MICROVM_FILE_KILL_ROUNDS sets the number of rounds (make test-long), MICROVM_KILL_SEED repeats a run.
/// </summary>
public sealed class FileKillTests
{
    private const int UsualRounds = 5;
    private const int LongestDelay = 700;
    private const int RecordLength = 3000;

    // Files appear by rename and link, whole; one is appended to by lines; folders come and go; a lock of each kind is held.
    private const string Work =
        """
        cd /vol; rm -f /tmp/1 /tmp/2; lock-probe hold flock l w >/tmp/1 & lock-probe hold posix p w >/tmp/2 &
        until [ -s /tmp/1 ] && [ -s /tmp/2 ]; do sleep 0.02; done; head -c 2999 /dev/zero | tr '\0' x >/tmp/record; echo >>/tmp/record; echo working
        i=0; while :; do i=$((i+1)); cp /tmp/record t; mv t r$((i%7)); ln r$((i%7)) k$i; rm -f k$((i-3)); echo line $i >>log; mkdir -p d$i/e; rm -r d$((i-2)) 2>/dev/null; done
        """;

    [SkippableFact]
    public void TheHostsTreeIsWholeAndUnlocked()
    {
        Installation.RequireKvm();
        int rounds = Number("MICROVM_FILE_KILL_ROUNDS") ?? UsualRounds, seed = Number("MICROVM_KILL_SEED") ?? Random.Shared.Next();
        Random random = new(seed);
        string folder = Directory.CreateTempSubdirectory("microvm-kill-").FullName;
        try
        {
            using Bundle bundle = Bundle.Create(Work);
            bundle.AddGuestProgram("lock-probe");
            bundle.AddMount("/vol", folder, "bind", "rbind", "rw");
            using DetachedContainer c = new(bundle);
            for (int round = 0; round < rounds; round++)
            {
                string where = $"seed {seed}, round {round}";
                foreach (string name in (string[])["l", "p", "log"])
                {
                    File.WriteAllText(Path.Combine(folder, name), "");
                }

                Assert.Equal((where, 0), (where, c.Create().ExitCode));
                int container = c.Pid;
                c.Call("start").EnsureSuccess();
                c.WaitForOutput("working");
                Assert.Equal((where, "busy busy"), (where, $"{Try(folder, "flock", "l")} {Try(folder, "posix", "p")}"));
                int vmm = c.Vmm;
                Thread.Sleep(random.Next(LongestDelay));
                Assert.Equal(0, Libc.kill(vmm, Libc.SIGKILL));
                DetachedContainer.Reap(container);
                Assert.Equal((where, "got got"), (where, $"{Try(folder, "flock", "l")} {Try(folder, "posix", "p")}"));
                Check(folder, where);
                c.Call("delete", "--force").EnsureSuccess();
            }
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    /// <summary>What has its name is whole; lines are in order; the tree can be listed and removed.</summary>
    private static void Check(string folder, string where)
    {
        string[] files = [.. Directory.GetFiles(folder).Select(f => Path.GetFileName(f)!)];
        foreach (string name in files.Where(f => f[0] is 'r' or 'k'))
        {
            byte[] contents = File.ReadAllBytes(Path.Combine(folder, name));
            Assert.Equal((where, name, RecordLength), (where, name, contents.Length));
            Assert.True(contents.AsSpan(..^1).IndexOfAnyExcept((byte)'x') < 0 && contents[^1] == '\n', $"{where}: {name} holds something else");
        }

        string[] lines = File.ReadAllLines(Path.Combine(folder, "log"));
        Assert.Equal(Enumerable.Range(1, lines.Length).Select(i => $"line {i}"), lines);
        foreach (string directory in Directory.GetDirectories(folder))
        {
            Directory.Delete(directory, recursive: true);
        }

        foreach (string name in files.Where(f => f[0] is 'r' or 'k' or 't'))
        {
            File.Delete(Path.Combine(folder, name));
        }
    }

    private static string Try(string folder, string kind, string file) =>
        Shell.Run(Installation.GuestProgram("lock-probe"), "try", kind, Path.Combine(folder, file), "w").StandardOutput.Trim();

    private static int? Number(string variable) =>
        int.TryParse(Environment.GetEnvironmentVariable(variable), NumberStyles.None, CultureInfo.InvariantCulture, out int number) ? number : null;
}
