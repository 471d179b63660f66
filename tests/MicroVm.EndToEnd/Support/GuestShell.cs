using System.Diagnostics;
using System.Globalization;
using System.Text.Json.Nodes;

namespace MicroVm.EndToEnd.Support;

/// <summary>A container with a shell at which the test types commands, one after the other.</summary>
internal sealed class GuestShell : IDisposable
{
    private const string Script = "while read -r line; do eval \"$line\" </dev/null 2>&1; echo \"@@ $?\"; done; exit 0";
    private static readonly TimeSpan Longest = TimeSpan.FromHours(1);
    private readonly Bundle _bundle;
    private readonly Container _container;
    private int _read;

    private GuestShell(Bundle bundle, Container container) => (_bundle, _container) = (bundle, container);

    /// <summary>The container that the shell is in.</summary>
    public Container Container => _container;

    /// <summary>Starts one; the network's guest programs are in its /bin.</summary>
    /// <param name="path">The network namespace.</param>
    /// <param name="configure">Changes the bundle before.</param>
    public static GuestShell Start(string path, Action<Bundle>? configure = null)
    {
        Bundle bundle = Bundle.Create(Script);
        try
        {
            bundle.Linux["namespaces"]!.AsArray().Single(n => (string)n!["type"]! == "network")!["path"] = path;
            foreach (string set in (string[])["bounding", "effective", "permitted"])
            {
                bundle.Process["capabilities"]![set] = new JsonArray("CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_NET_BIND_SERVICE");
            }

            foreach (string program in (string[])["net-peer", "net-probe", "net-rate"])
            {
                bundle.AddGuestProgram(program);
            }

            configure?.Invoke(bundle);
            return Start(bundle);
        }
        catch
        {
            bundle.Dispose();
            throw;
        }
    }

    /// <summary>Starts one that has no network.</summary>
    /// <param name="configure">Changes the bundle before.</param>
    public static GuestShell Start(Action<Bundle> configure)
    {
        Bundle bundle = Bundle.Create(Script);
        try
        {
            configure(bundle);
            return Start(bundle);
        }
        catch
        {
            bundle.Dispose();
            throw;
        }
    }

    /// <summary>Runs a line of shell to its end; what it printed.</summary>
    public string Run(string line)
    {
        (int status, string output) = Try(line);
        return status == 0 ? output : throw new InvalidOperationException($"{line}: exit status {status}: {output}");
    }

    /// <summary>Runs a line of shell to its end; its exit status and what it printed.</summary>
    public (int Status, string Output) Try(string line)
    {
        try
        {
            _container.Input.Write(System.Text.Encoding.UTF8.GetBytes(line + "\n"));
            _container.Input.Flush();
        }
        catch (IOException)
        {
            // It ended; what it said of that comes next.
        }

        string output = _container.WaitForOutput("@@ ", _read, out int at);
        _ = _container.WaitForOutput("\n", at, out int end);
        int status = int.Parse(_container.OutputSoFar[(at + 3)..end], CultureInfo.InvariantCulture);
        string said = output[_read..at];
        _read = end + 1;
        return (status, said);
    }

    /// <summary>Runs a line of shell that may take longer than a deadline, an hour at most; what it printed.</summary>
    public string RunLong(string line)
    {
        string output = $"/tmp/long{_read}";
        Run($"{{ ( {line} ) >{output} 2>&1; echo $? >{output}.status; }} &");
        for (Stopwatch watch = Stopwatch.StartNew(); watch.Elapsed < Longest;)
        {
            // The guest waits, once a second: what is asked from outside costs an emulated processor more.
            string status = Run($"i=0; until [ -s {output}.status ] || [ $i -ge 30 ]; do sleep 1; i=$((i+1)); done; cat {output}.status 2>/dev/null || true").Trim();
            if (status.Length > 0)
            {
                string said = Run($"cat {output}");
                return status == "0" ? said : throw new InvalidOperationException($"{line}: exit status {status}: {said}");
            }
        }

        throw new TimeoutException($"{line}: no end within {Longest}");
    }

    private static GuestShell Start(Bundle bundle)
    {
        Container container = Container.Start(bundle);
        try
        {
            GuestShell shell = new(bundle, container);
            shell.Run("true");
            return shell;
        }
        catch
        {
            container.Dispose();
            throw;
        }
    }

    /// <summary>Starts a program that runs until the end, and waits until it says that it is ready.</summary>
    public void Serve(string command, string ready)
    {
        // What it says later would stand between the answers.
        string log = $"/tmp/log{_read}";
        Run($"{{ {command}; }} >{log} 2>&1 &");
        Run($"until grep -q {ready} {log}; do sleep 0.05; done");
    }

    /// <summary>Ends the shell and waits for the container's end, which must be a good one.</summary>
    public void End()
    {
        _container.Input.Close();
        CommandResult result = _container.Wait();
        Assert.True(result.ExitCode == 0, result.ToString());
    }

    public void Dispose()
    {
        _container.Dispose();
        _bundle.Dispose();
    }
}
