using System.Text.Json.Nodes;
using MicroVm.Cli.Commands;
using MicroVm.Sandbox;
using MicroVm.Sandbox.Runtime;
using MicroVm.Sandbox.State;

namespace MicroVm.Cli.Tests;

/// <summary>What callers of runc parse.</summary>
public sealed class OutputTests
{
    private static readonly ContainerState State = new()
    {
        OciVersion = "1.0.2",
        Id = "c1",
        Bundle = "/b",
        Rootfs = "/b/rootfs",
        Created = DateTimeOffset.UnixEpoch.AddMilliseconds(250),
        Owner = 0,
        Init = new ProcessIdentity(42, 1),
        Status = ContainerStatus.Running,
    };

    [Fact]
    public void StateIsRuncsDocument() => Assert.Equal(
        """
        {
          "ociVersion": "1.0.2",
          "id": "c1",
          "pid": 42,
          "status": "running",
          "bundle": "/b",
          "rootfs": "/b/rootfs",
          "created": "1970-01-01T00:00:00.25Z",
          "owner": ""
        }
        """,
        StateOutput.Document((State, ContainerStatus.Running)));

    [Fact]
    public void ListIsRuncsTableOrJson()
    {
        Assert.Equal("ID          PID         STATUS      BUNDLE      CREATED     OWNER\n", StateOutput.List([], "table", quiet: false));
        Assert.Equal("null\n", StateOutput.List([], "json", quiet: false));
        Assert.Equal(
            "ID          PID         STATUS      BUNDLE      CREATED                   OWNER\n" +
            "c1          0           stopped     /b          1970-01-01T00:00:00.25Z   root\n",
            StateOutput.List([(State, ContainerStatus.Stopped)], "table", quiet: false));
        Assert.Equal("c1\n", StateOutput.List([(State, ContainerStatus.Stopped)], "whatever", quiet: true));
        Assert.StartsWith("[{\"ociVersion\":\"1.0.2\",\"id\":\"c1\",\"pid\":42,", StateOutput.List([(State, ContainerStatus.Running)], "json", quiet: false), StringComparison.Ordinal);
        Assert.Equal("invalid format option", Assert.Throws<SandboxException>(() => StateOutput.List([], "xyz", quiet: false)).Message);
    }

    [Fact]
    public void AddressesAreALastColumnOrMemberWhereTheyAreAskedFor()
    {
        string[] addresses = ["10.0.0.2/24", "fd00::2/64"];
        string table = StateOutput.List([(State, ContainerStatus.Running), (State, ContainerStatus.Stopped)], "table", quiet: false, _ => addresses);
        string[] lines = table.Split('\n');
        Assert.EndsWith("OWNER       ADDRESSES", lines[0], StringComparison.Ordinal);
        Assert.EndsWith("root        10.0.0.2/24,fd00::2/64", lines[1], StringComparison.Ordinal);
        Assert.EndsWith("root", lines[2].TrimEnd(), StringComparison.Ordinal);
        Assert.EndsWith(
            "\"owner\":\"root\",\"addresses\":[\"10.0.0.2/24\",\"fd00::2/64\"]}]\n",
            StateOutput.List([(State, ContainerStatus.Running)], "json", quiet: false, _ => addresses), StringComparison.Ordinal);
        Assert.DoesNotContain("addresses", StateOutput.List([(State, ContainerStatus.Running)], "json", quiet: false), StringComparison.Ordinal);
        Assert.Equal("c1\n", StateOutput.List([(State, ContainerStatus.Running)], "table", quiet: true, _ => throw new InvalidOperationException()));
    }

    [Fact]
    public void StatsHaveRuncsMembers()
    {
        ContainerFigures figures = new(
            new Dictionary<string, string>
            {
                ["cpu.stat"] = "usage_usec 10\nuser_usec 6\nsystem_usec 4\nnr_throttled 2\n",
                ["memory.current"] = "4096\n",
                ["memory.max"] = "max\n",
                ["memory.stat"] = "file 512\nanon 7\n",
                ["memory.swap.current"] = "1\n",
                ["pids.current"] = "3\n",
                ["pids.max"] = "max\n",
                ["io.stat"] = "8:0 rbytes=9 wbytes=0 rios=1 bad=x\nodd line\n",
                ["cpuset.cpus.effective"] = "0-1\n",
                ["hugetlb.2MB.current"] = "0\n",
                ["hugetlb.2MB.events"] = "max 5\n",
            },
            [new InterfaceCounters("eth0", 1, 2, 3, 4, 5, 6, 7, 8)]);
        string line = StatsOutput.Stats("c1", figures);
        Assert.EndsWith("}\n", line, StringComparison.Ordinal);
        JsonNode stats = JsonNode.Parse(line)!, data = stats["data"]!;
        Assert.Equal(("stats", "c1"), ((string)stats["type"]!, (string)stats["id"]!));
        Assert.Equal("""{"total":10000,"kernel":4000,"user":6000}""", data["cpu"]!["usage"]!.ToJsonString());
        Assert.Equal(2, (int)data["cpu"]!["throttling"]!["throttledPeriods"]!);
        Assert.Equal("[0,1]", data["cpuset"]!["cpus"]!.ToJsonString());
        Assert.Equal("""{"limit":18446744073709551615,"usage":4096,"failcnt":0}""", data["memory"]!["usage"]!.ToJsonString());
        Assert.Equal(4097, (int)data["memory"]!["swap"]!["usage"]!);
        Assert.Equal(512, (int)data["memory"]!["cache"]!);
        Assert.Equal("""{"anon":7,"file":512}""", data["memory"]!["raw"]!.ToJsonString());
        Assert.Equal("""{"current":3}""", data["pids"]!.ToJsonString());
        Assert.Equal("""[{"major":8,"op":"Read","value":9},{"major":8,"op":"Write"}]""", data["blkio"]!["ioServiceBytesRecursive"]!.ToJsonString());
        Assert.Equal(5, (int)data["hugetlb"]!["2MB"]!["failcnt"]!);
        Assert.Equal(8, (int)data["network_interfaces"]![0]!["TxDropped"]!);
        Assert.Equal("{\"type\":\"oom\",\"id\":\"c1\"}\n", StatsOutput.OutOfMemory("c1"));

        // A guest that says nothing, or nonsense, makes no trouble.
        Assert.NotNull(JsonNode.Parse(StatsOutput.Stats("c", new ContainerFigures(new Dictionary<string, string> { ["cpuset.cpus.effective"] = "9-1" }, []))));
    }

    [Fact]
    public void PsShowsTheLinesOfTheContainersProcesses()
    {
        const string Output = "UID   PID PPID CMD\nroot   1   0 init\nroot  42   1 microvm proxy process\n";
        Assert.Equal("UID   PID PPID CMD\nroot  42   1 microvm proxy process\n", PsCommand.Filter(Output, [42]));
        Assert.Equal("couldn't find PID field in ps output", Assert.Throws<SandboxException>(() => PsCommand.Filter("A B\n", [1])).Message);
    }

    [Theory]
    [InlineData("512", 512)]
    [InlineData("64m", 64L << 20)]
    [InlineData("1.5GiB", 3L << 29)]
    [InlineData("2kb", 2048)]
    [InlineData("-1", -1)]
    public void Bytes(string text, long bytes) => Assert.Equal(bytes, Quantities.Bytes(text, "memory"));

    [Theory]
    [InlineData("-2")]
    [InlineData("x")]
    [InlineData("1q")]
    [InlineData("99999999999999t")]
    public void OddBytesAreRefused(string text) => Assert.Contains("memory", Assert.Throws<SandboxException>(() => Quantities.Bytes(text, "memory")).Message, StringComparison.Ordinal);

    [Fact]
    public void Durations()
    {
        Assert.Equal((true, 90.25), (Quantities.TryDuration("1m30s250ms", out TimeSpan duration), duration.TotalSeconds));
        Assert.Equal((true, -2), (Quantities.TryDuration("-2s", out duration), duration.TotalSeconds));
        Assert.Equal((true, 0), (Quantities.TryDuration("0", out duration), duration.TotalSeconds));
        Assert.All((string[])["5", "", "-", "s", "1x", "1..2s", "99999999999h"], text => Assert.False(Quantities.TryDuration(text, out _), text));
    }
}
