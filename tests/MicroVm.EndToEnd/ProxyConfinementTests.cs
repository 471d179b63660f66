using System.Globalization;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>The processes that stand for a container's on the host have few rights left once they parse what the running guest says.</summary>
public sealed class ProxyConfinementTests
{
    private const ulong DacOverride = 1 << 1, NetAdmin = 1 << 12, SysChroot = 1 << 18, SysAdmin = 1 << 21;

    [SkippableFact]
    public void EveryThreadHasWhatItsWorkNeedsAndNoMore()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("sleep 1000");
        using DetachedContainer c = new(bundle);
        c.Create().EnsureSuccess();
        Check(c.Sandbox, DacOverride | NetAdmin | SysAdmin);
        CheckProxy(c.Pid);

        // Its code is where the kernel puts it: an executable with an address of its own would be far below.
        string code = File.ReadLines($"/proc/{c.Sandbox}/maps").First(l => l.EndsWith("/microvm", StringComparison.Ordinal)).Split('-')[0];
        Assert.True(ulong.Parse(code, NumberStyles.HexNumber, CultureInfo.InvariantCulture) > 1UL << 40, code);
        c.Call("start").EnsureSuccess();
        Check(c.Sandbox, DacOverride | NetAdmin | SysAdmin);
        CheckProxy(c.Pid);
        c.Leave("exec", "-d", "--pid-file", c["exec"], c.Id, "sleep", "1000").EnsureSuccess();
        int exec = int.Parse(File.ReadAllText(c["exec"]), CultureInfo.InvariantCulture);
        Check(exec, SysAdmin | SysChroot);

        // What they still have to do, they can.
        c.Call("update", "--pids-limit", "77").EnsureSuccess();
        c.Call("pause").EnsureSuccess();
        c.Call("resume").EnsureSuccess();
        Check(c.Sandbox, DacOverride | NetAdmin | SysAdmin);
        CheckProxy(c.Pid);
        Shell.Run("kill", "-TERM", $"{exec}").EnsureSuccess();
        Assert.Equal(143, DetachedContainer.Reap(exec));
        c.Raw("kill", c.Id, "KILL").EnsureSuccess();
        Assert.Equal(137, DetachedContainer.Reap(c.Pid));
    }

    /// <summary>The process that callers know has no rights at all, one thread, and next to no memory.</summary>
    private static void CheckProxy(int pid)
    {
        string[] status = File.ReadAllLines($"/proc/{pid}/status");
        string Value(string key) => status.First(l => l.StartsWith(key + ":", StringComparison.Ordinal))[(key.Length + 1)..].Trim();
        Assert.Equal(
            ("1", "0000000000000000", "0000000000000000", "0000000000000000", "1"), (Value("Threads"), Value("CapPrm"), Value("CapEff"), Value("CapInh"), Value("NoNewPrivs")));
        Assert.InRange(ProcessTree.AnonymousKiB(pid), 0, 64);
        Assert.Single(Directory.GetFileSystemEntries($"/proc/{pid}/fd"), f => !f.EndsWith("/0", StringComparison.Ordinal));
    }

    private static void Check(int pid, ulong most)
    {
        string[] tasks = Directory.GetDirectories($"/proc/{pid}/task");
        Assert.True(tasks.Length > 3, $"{tasks.Length} threads");
        foreach (string task in tasks)
        {
            string[] status;
            try
            {
                status = File.ReadAllLines($"{task}/status");
            }
            catch (IOException) when (!File.Exists($"{task}/status"))
            {
                continue; // It has ended meanwhile.
            }

            string name = Value("Name");
            foreach (string set in (string[])["CapPrm", "CapEff"])
            {
                ulong has = ulong.Parse(Value(set), NumberStyles.HexNumber, CultureInfo.InvariantCulture);
                Assert.True((has & ~most) == 0, $"thread {name}: {set} {has:x}");
            }

            Assert.Equal((name, "0000000000000000", "1", "2"), (name, Value("CapInh"), Value("NoNewPrivs"), Value("Seccomp")));

            string Value(string key) => status.First(l => l.StartsWith(key + ":", StringComparison.Ordinal))[(key.Length + 1)..].Trim();
        }
    }
}
