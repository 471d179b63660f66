using System.Diagnostics;
using System.Globalization;

namespace MicroVm.StartBench;

/// <summary>Single measurements; each starts a monitor, takes one figure and ends it.</summary>
internal sealed class Measure(string firstKvmRun, string scratch)
{
    private const string Marker = "first-kvm-run ";

    /// <summary>Milliseconds from exec of the monitor to its first KVM_RUN.</summary>
    public double ToFirstRun(Peer peer, VmShape shape)
    {
        string console = NewConsole();
        using Process process = Start(firstKvmRun, ["-k", .. peer.Command(shape, console)]);
        string error = process.StandardError.ReadToEnd();
        process.WaitForExit();
        return Nanoseconds(error) / 1e6;
    }

    /// <summary>Seconds from the first KVM_RUN to <paramref name="text"/> on the serial console.</summary>
    public double ToConsoleText(Peer peer, VmShape shape, string text, TimeSpan deadline)
    {
        string console = NewConsole();
        using Process process = Start(firstKvmRun, peer.Command(shape, console));
        try
        {
            string line;
            do
            {
                line = process.StandardError.ReadLine() ?? throw new InvalidOperationException($"{peer.Name} ended before its first KVM_RUN");
            }
            while (!line.StartsWith(Marker, StringComparison.Ordinal));
            Stopwatch watch = Stopwatch.StartNew();
            while (!Holds(console, text))
            {
                if (process.HasExited || watch.Elapsed > deadline)
                {
                    throw new InvalidOperationException($"{peer.Name}: no '{text}' on the console:\n{File.ReadAllText(console)}");
                }

                Thread.Sleep(2);
            }

            return watch.Elapsed.TotalSeconds;
        }
        finally
        {
            // The tracer's tracees die with it (PTRACE_O_EXITKILL).
            process.Kill();
            process.WaitForExit();
        }
    }

    /// <summary>
    /// KiB of private memory of an idle monitor, guest RAM excluded, once the guest has shown <paramref name="text"/>: all of it,
    /// and what is written to. The rest is pages of the executable, which a second monitor shares.
    /// </summary>
    public (long Total, long Dirty, IReadOnlyList<(string Name, long KiB)> Parts) PrivateMemory(Peer peer, VmShape shape, string text, TimeSpan deadline)
    {
        string console = NewConsole();
        string[] command = peer.Command(shape, console);
        using Process process = Start(command[0], command[1..]);
        try
        {
            Stopwatch watch = Stopwatch.StartNew();
            while (!Holds(console, text))
            {
                if (process.HasExited || watch.Elapsed > deadline)
                {
                    throw new InvalidOperationException($"{peer.Name}: no '{text}' on the console:\n{File.ReadAllText(console)}");
                }

                Thread.Sleep(20);
            }

            Thread.Sleep(500);
            return Smaps(process.Id, shape.MemoryMiB);
        }
        finally
        {
            process.Kill();
            process.WaitForExit();
        }
    }

    private static (long Total, long Dirty, IReadOnlyList<(string Name, long KiB)> Parts) Smaps(int pid, int memoryMiB)
    {
        Dictionary<string, long> parts = [];
        string name = "";
        bool guestRam = false;
        long ramStart = -1;
        long dirty = 0;
        foreach (string line in File.ReadLines($"/proc/{pid}/smaps"))
        {
            string[] words = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
            if (!words[0].EndsWith(':'))
            {
                string[] range = words[0].Split('-');
                long start = long.Parse(range[0], NumberStyles.HexNumber, CultureInfo.InvariantCulture);
                long length = long.Parse(range[1], NumberStyles.HexNumber, CultureInfo.InvariantCulture) - start;
                string file = words.Length > 5 ? Path.GetFileName(words[5]) : "anonymous";
                name = words[1].Contains('x', StringComparison.Ordinal) ? file + " (code)" : file;

                // QEMU's RAM is the anonymous mapping of exactly its size; ours a memfd by name, with the kernel's file mapped
                // over parts of it. The agent's image is the guest's, too, and shared.
                if (ramStart < 0 && line.Contains("guest-ram", StringComparison.Ordinal))
                {
                    ramStart = start;
                }

                guestRam = length == (long)memoryMiB << 20 || (ramStart >= 0 && start - ramStart < (long)memoryMiB << 20) || file == "agent.img";
            }
            else if (!guestRam && words[0] is "Private_Clean:" or "Private_Dirty:")
            {
                long kib = long.Parse(words[1], CultureInfo.InvariantCulture);
                parts[name] = parts.GetValueOrDefault(name) + kib;
                dirty += words[0] == "Private_Dirty:" ? kib : 0;
            }
        }

        return (parts.Values.Sum(), dirty, [.. parts.Where(p => p.Value > 0).OrderByDescending(p => p.Value).Select(p => (p.Key, p.Value))]);
    }

    private static bool Holds(string file, string text)
    {
        using FileStream stream = new(file, FileMode.OpenOrCreate, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        using StreamReader reader = new(stream);
        return reader.ReadToEnd().Contains(text, StringComparison.Ordinal);
    }

    private static double Nanoseconds(string error)
    {
        string? line = error.Split('\n').FirstOrDefault(l => l.StartsWith(Marker, StringComparison.Ordinal));
        return line is null
            ? throw new InvalidOperationException($"no KVM_RUN was made: {error}")
            : double.Parse(line.AsSpan(Marker.Length), CultureInfo.InvariantCulture);
    }

    private string NewConsole()
    {
        string console = Path.Combine(scratch, "console");
        File.WriteAllText(console, "");
        return console;
    }

    private static Process Start(string program, string[] args) =>
        Process.Start(new ProcessStartInfo(program, args) { RedirectStandardError = true, RedirectStandardInput = true })!;
}
