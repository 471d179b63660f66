namespace MicroVm.EndToEnd.Support;

/// <summary>What /proc tells of processes.</summary>
internal static class ProcessTree
{
    public static IEnumerable<int> Descendants(int pid)
    {
        ILookup<int, int> children = Directory.EnumerateDirectories("/proc")
            .Select(d => int.TryParse(Path.GetFileName(d), out int p) ? p : 0)
            .Where(p => p > 0)
            .Select(p => (Parent: Parent(p), Pid: p))
            .ToLookup(x => x.Parent, x => x.Pid);
        Stack<int> open = new([pid]);
        while (open.TryPop(out int p))
        {
            foreach (int child in children[p])
            {
                yield return child;
                open.Push(child);
            }
        }
    }

    public static string Name(int pid)
    {
        try
        {
            return File.ReadAllText($"/proc/{pid}/comm").Trim();
        }
        catch (IOException)
        {
            return "";
        }
    }

    public static string CommandLine(int pid)
    {
        try
        {
            return File.ReadAllText($"/proc/{pid}/cmdline");
        }
        catch (IOException)
        {
            return "";
        }
    }

    /// <summary>A process's own memory that is in RAM, in KiB; 0 when it has ended.</summary>
    public static int AnonymousKiB(int pid)
    {
        try
        {
            string line = File.ReadLines($"/proc/{pid}/status").FirstOrDefault(l => l.StartsWith("RssAnon:", StringComparison.Ordinal), "RssAnon: 0 kB");
            return int.Parse(line.Split(' ')[^2], System.Globalization.CultureInfo.InvariantCulture);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return 0;
        }
    }

    /// <summary>Whether a process, which lives, stands for one of the container's: its environment says so.</summary>
    public static bool StandsFor(int pid, string id)
    {
        try
        {
            return File.ReadAllText($"/proc/{pid}/environ").Split('\0').Contains($"MICROVM_PROXY={id}");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }

    /// <summary>Whether a process is in a cgroup of that name, of any hierarchy.</summary>
    public static bool IsInCgroup(int pid, string name)
    {
        try
        {
            return File.ReadLines($"/proc/{pid}/cgroup").Any(l => l.EndsWith("/" + name, StringComparison.Ordinal));
        }
        catch (IOException)
        {
            return false;
        }
    }

    public static bool IsAlive(int pid) => Stat(pid) is [not ("Z" or "X"), ..];

    private static int Parent(int pid) => Stat(pid) is [_, var parent, ..] ? int.Parse(parent, System.Globalization.CultureInfo.InvariantCulture) : 0;

    /// <summary>What /proc/PID/stat tells behind the name: state, parent, process group, session and so on; none when it has ended.</summary>
    private static string[] Stat(int pid)
    {
        try
        {
            string stat = File.ReadAllText($"/proc/{pid}/stat");
            return stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
        }
        catch (IOException)
        {
            return [];
        }
    }
}
