using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.LifecycleBench;

/// <summary>An OCI runtime's executable, of which one container's life is measured: create, start, its end, delete.</summary>
/// <param name="name">The runtime's name.</param>
/// <param name="program">The executable.</param>
/// <param name="bundle">The container's bundle.</param>
/// <param name="scratch">A folder for logs.</param>
/// <param name="libexec">microvm's parts; null for those beside it.</param>
internal sealed unsafe class Runtime(string name, string program, string bundle, string scratch, string? libexec = null)
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(180);
    private readonly string[] _environment =
        [$"PATH={System.Environment.GetEnvironmentVariable("PATH")}", .. libexec is null ? [] : (string[])[$"MICROVM_LIBEXEC={libexec}"]];

    private int _count;

    internal string Name => name;

    /// <summary>
    /// One life. This process must be its descendants' reaper: the process that stands for the container becomes its child.
    /// </summary>
    internal Life Measure()
    {
        string id = NextId();
        string log = Path.Combine(scratch, "log"), pidFile = Path.Combine(scratch, "pid");
        File.Delete(log);
        string[] globals = ["--log", log, "--log-format", "json", "--debug"];
        double cpu = ChildrenCpu();
        double create = Run([.. globals, "create", "--bundle", bundle, "--pid-file", pidFile, id]);
        int pid = int.Parse(File.ReadAllText(pidFile), CultureInfo.InvariantCulture);
        double start = Run([.. globals, "start", id]);
        long started = Stopwatch.GetTimestamp();
        using (SafeFd fd = SafeFd.From((int)Libc.syscall((nint)Libc.SYS_pidfd_open, pid, 0, 0, 0, 0, 0), "pidfd_open"))
        {
            Libc.pollfd end = new() { fd = fd.Value, events = Libc.POLLIN };
            while (Check.Retry(Libc.poll(&end, 1, (int)Patience.TotalMilliseconds)))
            {
            }
        }

        double ended = Stopwatch.GetElapsedTime(started).TotalMilliseconds;

        // A child's children, the VMM among them, count as its parent's once it was waited for: before that its time is its own.
        double init = ProcessCpu(pid);
        cpu = ChildrenCpu() - cpu;
        double before = ChildrenCpu();
        int status;
        Check.Result(Libc.waitpid(pid, &status, 0), "waitpid", name);
        double reaped = ChildrenCpu() - before;
        before = ChildrenCpu();
        double delete = Run([.. globals, "delete", id]);
        cpu += ChildrenCpu() - before + init;
        return new Life(create, start, ended, delete, cpu, Math.Max(0, reaped - init), Stamps(log));
    }

    /// <summary>Milliseconds of the fastest of a few <c>exec</c> of /bin/true in a container that was created.</summary>
    internal double MeasureExec()
    {
        const int tries = 3;
        string id = NextId(), log = Path.Combine(scratch, "log"), pidFile = Path.Combine(scratch, "pid");
        string[] globals = ["--log", log];
        Run([.. globals, "create", "--bundle", bundle, "--pid-file", pidFile, id]);
        int pid = int.Parse(File.ReadAllText(pidFile), CultureInfo.InvariantCulture);
        double best = Enumerable.Range(0, tries).Min(_ => Run([.. globals, "exec", id, "/bin/true"]));
        Run([.. globals, "delete", "--force", id]);
        int status;
        Check.Result(Libc.waitpid(pid, &status, 0), "waitpid", name);
        return best;
    }

    private string NextId() => string.Create(CultureInfo.InvariantCulture, $"bench-{System.Environment.ProcessId}-{_count++}");

    private double Run(string[] arguments)
    {
        using SafeFd nothing = SafeFd.From(Libc.open("/dev/null", Libc.O_RDWR | Libc.O_CLOEXEC, 0), "open", "/dev/null");
        using SafeFd errors = SafeFd.From(Libc.open(Path.Combine(scratch, "errors"), Libc.O_RDWR | Libc.O_CREAT | Libc.O_TRUNC | Libc.O_CLOEXEC, 0b110_000_000), "open");
        Spawn spawn = new() { File = program, Arguments = [name, .. arguments], Environment = _environment };
        spawn.Add(nothing);
        spawn.Add(nothing);
        spawn.Add(errors);
        long before = Stopwatch.GetTimestamp();
        using SpawnedProcess process = spawn.Start();
        ExitStatus exit = process.Wait(Patience) ?? throw new InvalidOperationException($"{name} does not end");
        double elapsed = Stopwatch.GetElapsedTime(before).TotalMilliseconds;
        return exit == default ? elapsed : throw new InvalidOperationException($"{string.Join(' ', [name, .. arguments])}: {exit}: {File.ReadAllText(Path.Combine(scratch, "errors"))}");
    }

    /// <summary>The log's steps, each with the milliseconds since the command that logged it began: "the agent is ready (+12.34 ms)".</summary>
    private static List<(string Step, double At)> Stamps(string log)
    {
        List<(string Step, double At)> stamps = [];
        foreach (string line in File.Exists(log) ? File.ReadAllLines(log) : [])
        {
            using JsonDocument document = JsonDocument.Parse(line);
            string message = document.RootElement.GetProperty("msg").GetString()!;
            int stamp = message.LastIndexOf(" (+", StringComparison.Ordinal);
            if (stamp >= 0 && message.EndsWith(" ms)", StringComparison.Ordinal))
            {
                stamps.Add((message[..stamp], double.Parse(message.AsSpan(stamp + 3, message.Length - stamp - 7), CultureInfo.InvariantCulture)));
            }
        }

        return stamps;
    }

    /// <summary>Milliseconds of CPU of all descendants that were waited for.</summary>
    private static double ChildrenCpu()
    {
        const int getrusage = 98, children = -1;
        long* usage = stackalloc long[18];
        Check.Result(Libc.syscall(getrusage, children, (nint)usage, 0, 0, 0, 0), "getrusage");
        return ((usage[0] + usage[2]) * 1e3) + ((usage[1] + usage[3]) / 1e3);
    }

    /// <summary>Milliseconds of CPU of one process, its children not counted (clock_getcpuclockid(3)).</summary>
    private static double ProcessCpu(int pid)
    {
        const int clockGettime = 228, scheduler = 2;
        long* time = stackalloc long[2];
        Check.Result(Libc.syscall(clockGettime, (~pid << 3) | scheduler, (nint)time, 0, 0, 0, 0), "clock_gettime");
        return (time[0] * 1e3) + (time[1] / 1e6);
    }
}

/// <summary>One container's life; milliseconds.</summary>
/// <param name="Create">The command's, from its start to its end.</param>
/// <param name="Start">The same.</param>
/// <param name="Ended">From there to the end of the process that stands for the container.</param>
/// <param name="Delete">The command's.</param>
/// <param name="Cpu">Of the three commands and that process.</param>
/// <param name="VmCpu">Of that process's children: the VMM, and so the guest.</param>
/// <param name="Stamps">The steps that the runtime logged.</param>
internal sealed record Life(double Create, double Start, double Ended, double Delete, double Cpu, double VmCpu, List<(string Step, double At)> Stamps)
{
    internal double Total => Create + Start + Delete;
}
