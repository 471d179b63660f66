using MicroVm.Cli.Parsing;
using MicroVm.Sandbox;

namespace MicroVm.Cli.Tests;

/// <summary>Flags as runc's parser reads them.</summary>
public sealed class ArgumentParserTests
{
    private static readonly Flag[] Flags = [new("bundle, b", "DIR", ""), new("all, a", null, ""), new("env, e", "V", ""), new("pid-file", "F", "")];

    [Theory]
    [InlineData("--bundle X id", "X", 2)]
    [InlineData("--bundle=X id", "X", 1)]
    [InlineData("-b X id", "X", 2)]
    [InlineData("-b=X id", "X", 1)]
    [InlineData("-bundle X id", "X", 2)]
    [InlineData("--bundle=a=b id", "a=b", 1)]
    [InlineData("--bundle -x id", "-x", 2)]
    [InlineData("-b X -- --all", "X", 3)]
    [InlineData("id -b X", null, 0)]
    [InlineData("- -b X", null, 0)]
    [InlineData("", null, 0)]
    public void FlagsEndAtTheFirstArgument(string line, string? bundle, int taken)
    {
        FlagValues values = new();
        Assert.Equal(taken, ArgumentParser.Read(Split(line), Flags, values));
        Assert.Equal(bundle, values.Text("bundle"));
    }

    [Theory]
    [InlineData("id --all", "--all id")]
    [InlineData("id -b X rest", "-b X id rest")]
    [InlineData("id --bundle=X rest", "--bundle=X id rest")]
    [InlineData("id --all KILL", "--all KILL id")]
    [InlineData("-a id -b X", "-a id -b X")]
    [InlineData("id -b --all", "-b --all id")]
    [InlineData("id -b --wat", "-b --wat id")]
    [InlineData("id -b -- --all", "-b -- --all id")]
    [InlineData("id -- --all", "-- id --all")]
    [InlineData("-a -- x -- y", "-a -- -- x y")]
    [InlineData("-b X -- x -- y", "-b X -- x -- y")]
    [InlineData("id - -e A", "-e A id -")]
    [InlineData("id --wat --all", "--all id --wat")]
    [InlineData("", "")]
    public void FlagsGoToTheFront(string line, string ordered) =>
        Assert.Equal(Split(ordered), ArgumentOrder.FlagsFirst(Split(line), Flags));

    [Fact]
    public void SwitchesAndLists()
    {
        FlagValues values = new();
        ArgumentParser.Read(Split("-a -e A=1 --env B=2 --pid-file= id"), Flags, values);
        Assert.True(values.On("all"));
        Assert.Equal(["A=1", "B=2"], values.All("env"));
        Assert.Null(values.Text("pid-file"));
        Assert.True(values.Has("pid-file"));
        FlagValues off = new();
        ArgumentParser.Read(Split("--all=false"), Flags, off);
        Assert.False(off.On("all"));
        Assert.Throws<SandboxException>(() => { FlagValues v = new(); ArgumentParser.Read(Split("-e x"), Flags, v); v.Number("env"); });
    }

    [Theory]
    [InlineData("--wat", "flag provided but not defined: -wat")]
    [InlineData("--bundle", "flag needs an argument: -bundle")]
    [InlineData("--all=maybe", "invalid boolean value \"maybe\" for -all: parse error")]
    [InlineData("---x", "bad flag syntax: ---x")]
    [InlineData("--=x", "bad flag syntax: --=x")]
    public void ErrorsAreRuncs(string line, string told) =>
        Assert.Equal(told, Assert.Throws<SandboxException>(() => ArgumentParser.Read(Split(line), Flags, new FlagValues())).Message);

    [Fact]
    public void NoCommandHasAFlagTwice() => Assert.All(
        CommandLine.Commands, c => Assert.Equal(c.Flags.SelectMany(f => f.Names).Distinct().Count(), c.Flags.SelectMany(f => f.Names).Count()));

    private static string[] Split(string line) => line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
}
