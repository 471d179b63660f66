using System.Diagnostics;
using System.Globalization;
using MicroVm.EndToEnd.Support;
using MicroVm.Linux.Native;

namespace MicroVm.EndToEnd;

/// <summary>
/// kill -9 of one of our processes at a random moment of a container's or a pod's life, round after round: `delete --force` leaves nothing.
/// MICROVM_KILL_ROUNDS sets the number of rounds of each (make test-long), MICROVM_KILL_SEED repeats a run.
/// </summary>
public sealed class KillRoundsTests
{
    private const int UsualRounds = 20, UsualPodRounds = 10;

    // A life from create to delete takes about this long on an idle machine; what is killed later than its end is killed at its end.
    private const int LongestDelay = 900, LongestPodDelay = 1500;

    private const string LifeOfOne =
        """
        $r create --bundle $3 --pid-file $4 $5; $r start $5; $r exec -d $5 sleep 100; $r pause $5; $r resume $5; $r kill $5 KILL; $r delete $5
        """;

    // The second container joins the first, which goes before it.
    private const string LifeOfPod =
        """
        $r create --bundle $3 --pid-file $4 $5; sed -i "s,/proc/[0-9]*/ns,/proc/$(cat $4)/ns," $6/config.json
        $r create --bundle $6 --pid-file $7 $8; $r start $5; $r start $8; $r exec -d $8 sleep 100; $r kill $5 KILL; $r delete $5
        $r exec $8 true; $r kill $8 KILL; $r delete $8
        """;

    [SkippableFact]
    public void NothingIsLeft()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("sleep 1000");
        using DetachedContainer c = new(bundle);
        bundle.Save();
        Rounds(UsualRounds, LongestDelay, LifeOfOne, c);
    }

    [SkippableFact]
    public void NothingIsLeftOfAPod()
    {
        Installation.RequireKvm();
        using Bundle firstBundle = Bundle.Create("sleep 1000"), secondBundle = Bundle.Create("sleep 1000");
        foreach ((string type, string file) in ((string, string)[])[("network", "net"), ("ipc", "ipc"), ("pid", "pid")])
        {
            secondBundle.Linux["namespaces"]!.AsArray().Single(n => (string?)n!["type"] == type)!["path"] = $"/proc/0/ns/{file}";
        }

        using DetachedContainer first = new(firstBundle), second = new(secondBundle, first.Root);
        firstBundle.Save();
        secondBundle.Save();
        Rounds(UsualPodRounds, LongestPodDelay, LifeOfPod, first, second);
    }

    private static void Rounds(int usual, int longestDelay, string script, params DetachedContainer[] containers)
    {
        int rounds = Number("MICROVM_KILL_ROUNDS") ?? usual, seed = Number("MICROVM_KILL_SEED") ?? Random.Shared.Next();
        Random random = new(seed);
        string mounts = Mounts(containers);
        SortedDictionary<string, int> victims = new(StringComparer.Ordinal);
        for (int round = 0; round < rounds; round++)
        {
            string where = $"seed {seed}, round {round}";
            using (Process life = Live(script, containers))
            {
                Thread.Sleep(random.Next(longestDelay));
                string victim = KillOne(life, containers, random);
                victims[victim] = victims.GetValueOrDefault(victim) + 1;
                where += $", killed {victim}";
                Assert.True(life.WaitForExit(Installation.RunDeadline), $"{where}: the commands do not end");
            }

            random.Shuffle(containers);
            foreach (DetachedContainer c in containers)
            {
                CommandResult delete = c.Call("delete", "--force");
                Assert.True(delete.ExitCode == 0, $"{where}: {delete}");
            }

            // A creation or an exec whose command was killed may just be finding that out, and undoes itself.
            string left = "";
            DetachedContainer.Eventually(() => (left = Left(containers)).Length == 0, $"{where}: something stays");
            Assert.Equal((where, "", mounts), (where, left, Mounts(containers)));
        }

        Assert.Equal(rounds, victims.Values.Sum());
    }

    /// <summary>What there is of the containers: state, processes, cgroups.</summary>
    private static string Left(DetachedContainer[] containers) => string.Join(
        ' ',
        [
            .. Directory.Exists(containers[0].Root) ? Directory.GetFileSystemEntries(containers[0].Root) : [],
            .. containers.SelectMany(c => Ours(c.Id)).Distinct().Select(p => $"{p} ({ProcessTree.Name(p)})"),
            .. containers.SelectMany(c => DetachedContainer.CgroupFolders("/" + c.Id)),
        ]);

    /// <summary>The whole life of the containers, by one script whose commands are killed like anything else.</summary>
    private static Process Live(string script, DetachedContainer[] containers)
    {
        // In the order in which they were made, whatever the last round made of it.
        DetachedContainer[] ordered = [.. containers.OrderBy(c => c.Root != Path.Combine(c.Folder, "root"))];
        return Process.Start(
            "sh",
            [
                "-c", $"exec </dev/null >/dev/null 2>/dev/null\nr=\"$1 --root $2\"\n{script}\nexit 0", "sh", Installation.Runtime, ordered[0].Root,
                .. ordered.SelectMany(c => (string[])[c.Bundle.Path, c["pid"], c.Id]),
            ]);
    }

    /// <summary>Kills one of the containers' processes, whichever lives: command, proxy, sandbox process, VMM.</summary>
    private static string KillOne(Process life, DetachedContainer[] containers, Random random)
    {
        int[] candidates = [.. ProcessTree.Descendants(life.Id).Concat(containers.SelectMany(c => Ours(c.Id))).Distinct()];
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

    private static string Mounts(DetachedContainer[] containers) => string.Join(
        '\n',
        File.ReadLines("/proc/mounts").Where(l => containers.Any(c => l.Contains(c.Folder, StringComparison.Ordinal) || l.Contains(c.Bundle.Path, StringComparison.Ordinal))));

    private static int? Number(string variable) =>
        int.TryParse(Environment.GetEnvironmentVariable(variable), NumberStyles.None, CultureInfo.InvariantCulture, out int number) ? number : null;
}
