using System.Text;
using MicroVm.Oci.Config;
using MicroVm.Sandbox.Proxies;

namespace MicroVm.Sandbox.Tests;

/// <summary>What lists of processes show of the host's process that stands for a container's.</summary>
public sealed class ProxyArgumentsTests
{
    [Theory]
    [InlineData("""{"a": {"args": ["no"]}, "process": {"env": ["x"], "args": ["sh", "-c", "echo \u00e4"]}}""", "sh|-c|echo ä")]
    [InlineData("""{"process": {"args": []}}""", "microvm|some")]
    [InlineData("""{"process": {"args": "sh"}}""", "microvm|some")]
    [InlineData("""{"process": [{"args": ["sh"]}], "args": ["sh"]}""", "microvm|some")]
    [InlineData("""{"process": null}""", "microvm|some")]
    [InlineData("""{"process": {"args": ["sh", """, "microvm|some")]
    [InlineData("", "microvm|some")]
    [InlineData("[1]", "microvm|some")]
    public void TheyAreTheOnesOfTheConfiguration(string json, string expected) => Assert.Equal(
        expected, string.Join('|', ProxyArguments.Of(new ProxyRequest { Root = "/r", Id = "some", Bundle = "/b" }, Encoding.UTF8.GetBytes(json))));

    [Fact]
    public void LongOnesAreCutAndOnesOfAnExecAreItsOwn()
    {
        Process process = new() { Args = ["a", new string('b', 100_000), .. Enumerable.Repeat("c", 5000)] };
        IReadOnlyList<string> arguments = ProxyArguments.Of(new ProxyRequest { Root = "/r", Id = "some", Process = process }, []);
        Assert.Equal((1024, "a", new string('b', 1024), "c"), (arguments.Count, arguments[0], arguments[1], arguments[^1]));
        Assert.Equal(["microvm", "some"], ProxyArguments.Of(new ProxyRequest { Root = "/r", Id = "some", Process = new Process() }, []));
    }
}
