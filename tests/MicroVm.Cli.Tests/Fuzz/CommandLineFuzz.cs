using System.Text.Json.Nodes;
using MicroVm.Cli.Commands;
using MicroVm.Cli.Parsing;
using MicroVm.Sandbox;
using MicroVm.Sandbox.Runtime;
using MicroVm.Tests.Shared.Fuzz;

namespace MicroVm.Cli.Tests.Fuzz;

/// <summary>Any arguments are read or refused; any figures of a guest's become JSON.</summary>
public sealed class CommandLineFuzz
{
    private static readonly string[] Words = ["--", "-", "---", "--=", "=", "", "id", "-1", "99999999999", "true", "maybe", "a=b", "\0", "ü"];
    private static readonly string[] FigureFiles = ["cpu.stat", "memory.stat", "memory.max", "memory.current", "memory.events", "pids.max", "io.stat", "cpuset.cpus.effective", "hugetlb.2MB.current"];
    private static readonly string[] Figures = ["usage_usec", "file", "max", "8:0", "rbytes=1", "-1", "0-8191", "18446744073709551615", "99999999999999999999", "\n", " ", ",", "=", ":", "\u0001", "\ufffd"];

    [Fact]
    public void Arguments()
    {
        Flag[] flags = [.. CommandLine.Commands.SelectMany(c => c.Flags), .. GlobalFlags.All];
        Fuzzing.Run("arguments", random =>
        {
            string Word() => random.Next(3) == 0
                ? Words[random.Next(Words.Length)]
                : (random.Next(2) == 0 ? "--" : "-") + flags[random.Next(flags.Length)].Names.First() + (random.Next(2) == 0 ? "=" + Words[random.Next(Words.Length)] : "");
            string[] line = [.. Enumerable.Range(0, random.Next(8)).Select(_ => Word())];
            Command command = CommandLine.Commands[random.Next(CommandLine.Commands.Count)];
            try
            {
                FlagValues values = new();
                Assert.InRange(ArgumentParser.Read(line, command.Flags, values), 0, line.Length);
                foreach (Flag flag in command.Flags)
                {
                    _ = (values.Text(flag.Names.First()), values.On(flag.Names.First()), values.Number(flag.Names.First()));
                }
            }
            catch (SandboxException e)
            {
                Assert.NotEqual("", e.Message);
            }
        });
    }

    [Fact]
    public void Statistics() => Fuzzing.Run("stats", random =>
    {
        string Text() => string.Concat(Enumerable.Range(0, random.Next(12)).Select(_ => Figures[random.Next(Figures.Length)] + (random.Next(2) == 0 ? " " : "")));
        Dictionary<string, string> files = FigureFiles.ToDictionary(f => f, _ => Text());
        files[Text()] = Text();
        ContainerFigures figures = new(files, [new InterfaceCounters(Text(), ulong.MaxValue, 1, 2, 3, 4, 5, 6, 7)]);
        JsonNode json = JsonNode.Parse(StatsOutput.Stats("c1", figures))!;
        Assert.Equal("stats", json["type"]!.GetValue<string>());
    });
}
