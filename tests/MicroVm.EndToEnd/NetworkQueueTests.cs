using System.Globalization;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>A guest with two CPUs uses two queue pairs.</summary>
public sealed class NetworkQueueTests
{
    // TCP over IPv4 with time stamps on Ethernet.
    private const int SegmentBytes = 1448;

    // Two streams each way, one of each on either CPU; sha256sum of what arrived, by stream.
    private const string Peer = """
        import hashlib, socket, threading
        def take(port):
            s = socket.create_server(('10.77.0.1', port)); c = s.accept()[0]; h = hashlib.sha256()
            while d := c.recv(65536): h.update(d)
            out[port] = h.hexdigest()
        def give(port):
            import time
            for _ in range(600):
                try: c = socket.create_connection(('10.77.0.2', port)); break
                except OSError: time.sleep(0.1)
            c.sendall(b''.join(b'%d\n' % i for i in range(1, COUNT + 1))); c.close()
        out = {}
        ts = [threading.Thread(target=take, args=(p,)) for p in (7001, 7002)] + [threading.Thread(target=give, args=(p,)) for p in (7101, 7102)]
        [t.start() for t in ts]; print('listening', flush=True); [t.join() for t in ts]; print(out[7001], out[7002])
        """;

    [SkippableFact]
    public void BothQueuesCarryTrafficAndNothingIsLostOrReordered()
    {
        Installation.RequireKvm();
        Skip.If(NetworkLab.Missing is not null, NetworkLab.Missing);
        Skip.IfNot(File.Exists("/usr/bin/python3"), "NO python3: the peer of the test cannot run");
        int count = Installation.IsLab || Installation.KernelCodeIsEmulated ? 20_000 : Installation.KvmIsOrdinary ? 5_000_000 : 500_000;
        using NetworkLab lab = NetworkLab.Create();
        using Bundle bundle = Bundle.Create($$"""
            echo cpus $(nproc) queues $(ls /sys/class/net/eth0/queues | grep -c rx)
            for i in 1 2; do taskset $i sh -c "nc -l -p 710$i | sha256sum >/tmp/in$i" & done
            echo ready; read go
            for i in 1 2; do taskset $i sh -c "seq 1 {{count}} | nc 10.77.0.1 700$i" & done
            wait; cat /tmp/in1 /tmp/in2; echo finished; read go
            """);
        bundle.Linux["namespaces"]!.AsArray().Single(n => (string)n!["type"]! == "network")!["path"] = lab.ContainerPath;
        using Container container = Container.Start(bundle, "--vcpus", "2");
        container.WaitForOutput("ready");
        Skip.If(container.OutputSoFar.Contains("cpus 1 ", StringComparison.Ordinal), "ONE CPU: this guest kernel starts no second one here; several queue pairs are not tested");
        Assert.Contains("cpus 2 queues 2", container.OutputSoFar, StringComparison.Ordinal);
        Assert.Equal(2, Directory.GetDirectories($"/proc/{container.VmmPids().Single()}/task").Count(t => Comm(t).StartsWith("net0.", StringComparison.Ordinal)));

        string before = lab.In('R', "cat /proc/net/netstat");
        string script = Path.Combine(bundle.Path, "peer.py");
        File.WriteAllText(script, Peer.Replace("COUNT", count.ToString(CultureInfo.InvariantCulture), StringComparison.Ordinal));
        Task<string> peer = Task.Run(() => lab.In('R', $"python3 {script}"));
        DetachedContainer.Eventually(() => new[] { ":1B59 ", ":1B5A " }.All(lab.In('R', "cat /proc/net/tcp").Contains), "the peer listens");
        container.Input.Write("go\n"u8);
        container.Input.Flush();
        container.WaitForOutput("finished");
        string sum = Shell.Run("sh", "-c", $"seq 1 {count} | sha256sum").StandardOutput.Split(' ')[0];
        Assert.Equal($"{sum} {sum}", peer.Result.Split('\n')[1]);
        Assert.Equal(2, container.OutputSoFar.Split('\n').Count(l => l.StartsWith(sum, StringComparison.Ordinal)));

        // Both threads had work, and segments came in turn, but for those of threads that moved from one CPU to the next.
        long[] work = [.. Directory.GetDirectories($"/proc/{container.VmmPids().Single()}/task").Where(t => Comm(t).StartsWith("net0.", StringComparison.Ordinal)).Select(Switches)];
        Assert.All(work, w => Assert.True(w > 20, string.Join(", ", work)));
        long segments = count * 7L * 2 / SegmentBytes;
        Assert.InRange(Reordered(lab.In('R', "cat /proc/net/netstat")) - Reordered(before), 0, segments / 100);
        container.Input.Write("go\n"u8);
        container.Input.Close();
        Assert.Equal(0, container.Wait().ExitCode);
    }

    private static string Comm(string task) => File.ReadAllText(task + "/comm").Trim();

    private static long Switches(string task) => File.ReadLines(task + "/status")
        .Where(l => l.Contains("ctxt_switches", StringComparison.Ordinal))
        .Sum(l => long.Parse(l.Split(':')[1], CultureInfo.InvariantCulture));

    private static long Reordered(string netstat)
    {
        string[][] lines = [.. netstat.Split('\n').Where(l => l.StartsWith("TcpExt:", StringComparison.Ordinal)).Select(l => l.Split(' '))];
        return long.Parse(lines[1][Array.IndexOf(lines[0], "TCPOFOQueue")], CultureInfo.InvariantCulture);
    }
}
