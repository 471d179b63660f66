using System.Diagnostics;
using System.Text;

namespace MicroVm.EndToEnd.Support;

/// <summary>One `run` of a bundle, with a state folder of its own; ended and checked for leftovers on Dispose.</summary>
internal sealed class Container : IDisposable
{
    private static int s_next;
    private readonly Task<string> _stderr;
    private readonly MemoryStream _stdout = new();
    private readonly Task _stdoutPump;

    private Container(Bundle bundle, string[] globals, string[] flags)
    {
        bundle.Save();
        Id = $"e2e-{Environment.ProcessId}-{Interlocked.Increment(ref s_next)}";
        Root = Directory.CreateTempSubdirectory("microvm-root-").FullName;
        ConsoleLog = System.IO.Path.Combine(Root, "..", System.IO.Path.GetFileName(Root) + ".console");
        ProcessStartInfo start = new(
            Installation.Runtime,
            ["--root", Root, .. globals, "run", "--bundle", bundle.Path, .. (string[])(Installation.IsMicroVm ? ["--console-log", ConsoleLog] : []), .. flags, Id])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        Process = Process.Start(start)!;
        _stderr = Process.StandardError.ReadToEndAsync();
        _stdoutPump = Task.Run(Pump);
    }

    public string Id { get; }

    /// <summary>The `--root` folder.</summary>
    public string Root { get; }

    public string ConsoleLog { get; }

    public Process Process { get; }

    public Stream Input => Process.StandardInput.BaseStream;

    public string OutputSoFar
    {
        get
        {
            lock (_stdout)
            {
                return Encoding.UTF8.GetString(_stdout.ToArray());
            }
        }
    }

    public static Container Start(Bundle bundle, params string[] flags) => new(bundle, [], flags);

    /// <summary>Runs a bundle to its end, with empty standard input.</summary>
    public static CommandResult Run(Bundle bundle, params string[] flags) => RunWith([], bundle, flags);

    /// <summary>The same with flags before the command.</summary>
    public static CommandResult RunWith(string[] globals, Bundle bundle, params string[] flags)
    {
        using Container container = new(bundle, globals, flags);
        container.Process.StandardInput.Close();
        return container.Wait();
    }

    /// <summary>Waits until the output holds <paramref name="text"/>.</summary>
    public void WaitForOutput(string text) => WaitForOutput(text, 0, out _);

    /// <summary>Waits until the output holds <paramref name="text"/> from <paramref name="start"/> on.</summary>
    /// <param name="text">The text.</param>
    /// <param name="start">Where to begin to look.</param>
    /// <param name="at">Where it was found.</param>
    /// <returns>The output so far.</returns>
    public string WaitForOutput(string text, int start, out int at)
    {
        Stopwatch watch = Stopwatch.StartNew();
        string output;
        while ((at = (output = OutputSoFar).IndexOf(text, start, StringComparison.Ordinal)) < 0)
        {
            // Its last words may still be on their way.
            bool ended = Process.HasExited && _stdoutPump.Wait(Installation.RunDeadline);
            if (ended && OutputSoFar.IndexOf(text, start, StringComparison.Ordinal) >= 0)
            {
                continue;
            }

            if (ended || watch.Elapsed > Installation.RunDeadline)
            {
                throw new InvalidOperationException($"no '{text}' in the output: {(ended ? Wait() : OutputSoFar)}\n{Console()}");
            }

            Thread.Sleep(20);
        }

        return output;
    }

    /// <summary>Waits for the end.</summary>
    /// <param name="limit">How long at most; null: what all containers may take.</param>
    public CommandResult Wait(TimeSpan? limit = null)
    {
        if (!Process.WaitForExit(limit ?? Installation.RunDeadline))
        {
            throw new TimeoutException($"the container did not end; output so far:\n{OutputSoFar}\n{Console()}");
        }

        _stdoutPump.Wait();
        return new CommandResult(Process.ExitCode, OutputSoFar, _stderr.Result);
    }

    /// <summary>Output as bytes, after <see cref="Wait"/>.</summary>
    public byte[] OutputBytes => _stdout.ToArray();

    /// <summary>Host processes whose command line or configuration belongs to this container: its VMM.</summary>
    public IReadOnlyList<int> VmmPids() => ProcessTree.Descendants(Process.Id).Where(p => ProcessTree.Name(p) == "microvm-vmm").ToList();

    public void Dispose()
    {
        if (!Process.HasExited)
        {
            Process.Kill();
            Process.WaitForExit();
            if (!Installation.IsMicroVm)
            {
                // There the container outlives its `run`.
                Shell.Run(Installation.Runtime, "--root", Root, "delete", "--force", Id);
            }
        }

        Process.Dispose();
        DeleteRoot();
        File.Delete(ConsoleLog);
    }

    // The sandbox process may still be removing its VM's folder there, which is then gone before it can be deleted here.
    private void DeleteRoot()
    {
        for (int attempt = 0; ; attempt++)
        {
            try
            {
                Directory.Delete(Root, recursive: true);
                return;
            }
            catch (IOException) when (attempt < 100)
            {
                if (!Directory.Exists(Root))
                {
                    return;
                }

                Thread.Sleep(20);
            }
        }
    }

    private void Pump()
    {
        byte[] buffer = new byte[65536];
        while (Process.StandardOutput.BaseStream.Read(buffer) is int n and > 0)
        {
            lock (_stdout)
            {
                _stdout.Write(buffer, 0, n);
            }
        }
    }

    private string Console() => File.Exists(ConsoleLog) ? "--- console\n" + File.ReadAllText(ConsoleLog) : "";
}
