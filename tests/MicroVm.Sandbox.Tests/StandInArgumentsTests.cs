using MicroVm.Oci.Config;
using MicroVm.Sandbox.StandIn;

namespace MicroVm.Sandbox.Tests;

/// <summary>What lists of processes show of the host's process that stands for a container's.</summary>
public sealed class StandInArgumentsTests : IDisposable
{
    private readonly TempFolder _folder = new();

    [Theory]
    [InlineData("""{"a": {"args": ["no"]}, "process": {"env": ["x"], "args": ["sh", "-c", "echo \u00e4"]}}""", "sh|-c|echo ä")]
    [InlineData("""{"process": {"args": []}}""", "microvm|some")]
    [InlineData("""{"process": {"args": "sh"}}""", "microvm|some")]
    [InlineData("""{"process": [{"args": ["sh"]}], "args": ["sh"]}""", "microvm|some")]
    [InlineData("""{"process": null}""", "microvm|some")]
    [InlineData("""{"process": {"args": ["sh", """, "microvm|some")]
    [InlineData("", "microvm|some")]
    [InlineData("[1]", "microvm|some")]
    [InlineData(null, "microvm|some")]
    public void TheyAreTheOnesOfTheConfiguration(string? json, string expected)
    {
        if (json is not null)
        {
            File.WriteAllText(_folder["config.json"], json);
        }

        Assert.Equal(expected, string.Join('|', StandInArguments.Of(new StandInRequest { Root = "/r", Id = "some", Bundle = _folder.Path })));
    }

    [Fact]
    public void LongOnesAreCutAndOnesOfAnExecAreItsOwn()
    {
        Process process = new() { Args = ["a", new string('b', 100_000), .. Enumerable.Repeat("c", 5000)] };
        IReadOnlyList<string> arguments = StandInArguments.Of(new StandInRequest { Root = "/r", Id = "some", Process = process });
        Assert.Equal((1024, "a", new string('b', 1024), "c"), (arguments.Count, arguments[0], arguments[1], arguments[^1]));
        Assert.Equal(["microvm", "some"], StandInArguments.Of(new StandInRequest { Root = "/r", Id = "some", Process = new Process() }));
    }

    public void Dispose() => _folder.Dispose();
}
