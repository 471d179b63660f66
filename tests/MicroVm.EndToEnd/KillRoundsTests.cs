using System.Diagnostics;
using System.Globalization;
using MicroVm.EndToEnd.Support;
using MicroVm.Linux.Native;

namespace MicroVm.EndToEnd;

/// <summary>
/// kill -9 of one of our processes at a random moment of a container's life, round after round: `delete --force` leaves nothing.
/// MICROVM_KILL_ROUNDS sets the number of rounds (make test-long), MICROVM_KILL_SEED repeats a run.
/// </summary>
public sealed class KillRoundsTests
{
    private const int UsualRounds = 20;

    // A life from create to delete takes about this long on an idle machine; what is killed later than its end is killed at its end.
    private const int LongestDelay = 900;

    [SkippableFact]
    public void NothingIsLeft()
    {
        Installation.RequireKvm();
        int rounds = Number("MICROVM_KILL_ROUNDS") ?? UsualRounds, seed = Number("MICROVM_KILL_SEED") ?? Random.Shared.Next();
        Random random = new(seed);
        using Bundle bundle = Bundle.Create("sleep 1000");
        using DetachedContainer c = new(bundle);
        bundle.Save();
        string mounts = Mounts(c);
        SortedDictionary<string, int> victims = new(StringComparer.Ordinal);
        for (int round = 0; round < rounds; round++)
        {
            string where = $"seed {seed}, round {round}";
            using (Process life = Live(c))
            {
                Thread.Sleep(random.Next(LongestDelay));
                string victim = KillOne(life, c.Id, random);
                victims[victim] = victims.GetValueOrDefault(victim) + 1;
                where += $", killed {victim}";
                Assert.True(life.WaitForExit(Installation.RunDeadline), $"{where}: the commands do not end");
            }

            c.Call("delete", "--force").EnsureSuccess();

            // A creation or an exec whose command was killed may just be finding that out, and undoes itself.
            string left = "";
            DetachedContainer.Eventually(() => (left = Left(c)).Length == 0, $"{where}: something stays");
            Assert.Equal((where, "", mounts), (where, left, Mounts(c)));
        }

        Assert.Equal(rounds, victims.Values.Sum());
    }

    /// <summary>What there is of the container: state, processes, cgroups.</summary>
    private static string Left(DetachedContainer c) => string.Join(
        ' ',
        [
            .. Directory.Exists(c.Root) ? Directory.GetFileSystemEntries(c.Root) : [], .. Ours(c.Id).Select(p => $"{p} ({ProcessTree.Name(p)})"),
            .. DetachedContainer.CgroupFolders("/" + c.Id),
        ]);

    /// <summary>A container's whole life, by one script whose commands are killed like anything else.</summary>
    private static Process Live(DetachedContainer c) => Process.Start("sh",
    [
        "-c",
        """
        exec </dev/null >/dev/null 2>/dev/null
        r="$1 --root $2"
        $r create --bundle $3 --pid-file $4 $5; $r start $5; $r exec -d $5 sleep 100; $r pause $5; $r resume $5; $r kill $5 KILL; $r delete $5
        exit 0
        """,
        "sh", Installation.Runtime, c.Root, c.Bundle.Path, c["pid"], c.Id,
    ]);

    /// <summary>Kills one of a container's processes, whichever lives: command, process on the host, VMM.</summary>
    private static string KillOne(Process life, string id, Random random)
    {
        int[] candidates = [.. ProcessTree.Descendants(life.Id).Concat(Ours(id)).Distinct()];
        if (candidates.Length == 0)
        {
            return "nothing";
        }

        int victim = candidates[random.Next(candidates.Length)];
        string name = ProcessTree.Name(victim);
        _ = Libc.kill(victim, Libc.SIGKILL);
        return name.Length > 0 ? name : "nothing";
    }

    /// <summary>Processes that stand for the container's, and what is in its cgroup: the VMM, also when its parent is gone.</summary>
    private static IEnumerable<int> Ours(string id) => Directory.EnumerateDirectories("/proc")
        .Select(d => int.TryParse(Path.GetFileName(d), NumberStyles.None, CultureInfo.InvariantCulture, out int pid) ? pid : 0)
        .Where(pid => pid > 0 && ProcessTree.IsAlive(pid) && (ProcessTree.StandsFor(pid, id) || ProcessTree.IsInCgroup(pid, id)));

    private static string Mounts(DetachedContainer c) =>
        string.Join('\n', File.ReadLines("/proc/mounts").Where(l => l.Contains(c.Folder, StringComparison.Ordinal) || l.Contains(c.Bundle.Path, StringComparison.Ordinal)));

    private static int? Number(string variable) =>
        int.TryParse(Environment.GetEnvironmentVariable(variable), NumberStyles.None, CultureInfo.InvariantCulture, out int number) ? number : null;
}
