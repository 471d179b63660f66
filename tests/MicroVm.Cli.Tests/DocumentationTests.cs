using System.Text.RegularExpressions;

namespace MicroVm.Cli.Tests;

/// <summary>The tables of docs/ are what the code has: every flag has a row, every row that says "supported" a test that exists.</summary>
public sealed partial class DocumentationTests
{
    private static readonly string Top = FindTop();
    private static readonly ILookup<string, string> Tests = FindTests();

    [Fact]
    public void EveryFlagHasARowAndEveryRowItsFlag()
    {
        Dictionary<string, HashSet<string>> documented = [];
        string[] commands = [];
        foreach (string[] row in Rows("CLI.md", "Commands", 4))
        {
            commands = row[0].Length > 0 ? [.. Quoted(row[0])] : commands;
            foreach (string command in commands)
            {
                documented.TryAdd(command, []);
                documented[command].UnionWith(Names(row[1]));
                if (row[1].Contains("as `create`", StringComparison.Ordinal))
                {
                    documented[command].UnionWith(documented["create"]);
                }
            }
        }

        // Those of a command that is refused as a whole need no rows.
        string[] refused = ["checkpoint", "restore"];
        Assert.Equal(CommandLine.Commands.Select(c => c.Name).Order(), documented.Keys.Order());
        Assert.All(CommandLine.Commands.Where(c => !refused.Contains(c.Name)), c => Assert.Equal(
            (c.Name, string.Join(' ', c.Flags.SelectMany(f => f.Names).Order())), (c.Name, string.Join(' ', documented[c.Name].Order()))));
        Assert.Equal(
            string.Join(' ', GlobalFlags.All.SelectMany(f => f.Names).Except(["help", "h"]).Order()),
            string.Join(' ', Rows("CLI.md", "Global flags", 3).SelectMany(r => Names(r[0])).Order()));
    }

    [Theory]
    [InlineData("CLI.md")]
    [InlineData("OCI.md")]
    [InlineData("CALLERS.md")]
    public void EveryRowNamesATestThatExists(string document)
    {
        string text = File.ReadAllText(Path.Combine(Top, "docs", document));
        Dictionary<string, string> aliases = Alias().Matches(text).ToDictionary(m => m.Groups[1].Value, m => m.Groups[2].Value);
        int rows = 0;
        foreach (string[] row in Tables(text).Where(t => t[0][^1] == "test").SelectMany(t => t.Skip(1)))
        {
            rows++;
            string line = string.Join(" | ", row);
            Assert.False(row[^1].Length == 0 || row[^1] == "–", $"{document}: no test in the row: {line}");
            Assert.All(Separator().Split(row[^1]), name => Assert.True(Exists(name, aliases), $"{document}: there is no test {name}: {line}"));
        }

        Assert.True(rows > 0, document);
    }

    [Fact]
    public void TheTableOfCommandsIsWhatTheCasesAre()
    {
        (string Engine, string Name)[] engines = [("podman", "Podman"), ("docker", "Docker"), ("ctr", "containerd (ctr)"), ("shim", "containerd, our shim"), ("cri", "containerd's CRI plug-in, both shims"), ("kubernetes", "Kubernetes' manifests")];
        IEnumerable<string> cases = engines.SelectMany(e => Scripts(e.Engine).SelectMany(s => Case().Matches(s)).Select(m => $"{e.Name}: {m.Groups[1].Value}"));
        Assert.Equal(cases, Rows("CALLERS.md", "Commands that are run", 2).Select(r => $"{r[0]}: {r[1]}"));
    }

    /// <summary>The scripts with an engine's cases; those of containerd's shims have some in common.</summary>
    private static IEnumerable<string> Scripts(string engine)
    {
        string[] scripts = engine switch
        {
            "ctr" or "shim" => ["lib/tasks.py", engine],
            "cri" => ["lib/pods.py"],
            _ => [engine],
        };
        return scripts.Select(s => File.ReadAllText(Path.Combine(Top, "tests/interop", s)));
    }

    private static bool Exists(string name, Dictionary<string, string> aliases)
    {
        // A case of tests/interop by its title.
        if (Interop().Match(name) is { Success: true } interop)
        {
            return Scripts(interop.Groups[1].Value).Any(s => s.Contains($"@case(\"{interop.Groups[2].Value}\")", StringComparison.Ordinal));
        }

        string[] parts = name.Split('.');
        string type = aliases.GetValueOrDefault(parts[0], parts[0].EndsWith("Tests", StringComparison.Ordinal) ? parts[0] : parts[0] + "Tests");
        return parts.Length <= 2 && Tests.Contains(type) && (parts.Length == 1 || Tests[type].Contains(parts[1]));
    }

    /// <summary>Methods of test classes, by class, as the sources have them: other test projects cannot be referenced.</summary>
    private static ILookup<string, string> FindTests() => Directory
        .EnumerateFiles(Path.Combine(Top, "tests"), "*.cs", SearchOption.AllDirectories)
        .SelectMany(f =>
        {
            string source = File.ReadAllText(f);
            List<Match> types = new(Class().Matches(source));
            return TestMethod().Matches(source).Select(m => (Class: types.LastOrDefault(t => t.Index < m.Index)?.Groups[1].Value ?? "", Method: m.Groups[1].Value));
        })
        .ToLookup(t => t.Class, t => t.Method);

    private static IEnumerable<string[]> Rows(string document, string heading, int columns)
    {
        string text = File.ReadAllText(Path.Combine(Top, "docs", document));
        string section = text[text.IndexOf($"## {heading}\n", StringComparison.Ordinal)..];
        return Tables(section)[0].Skip(1).Select(r =>
        {
            Assert.Equal(columns, r.Length);
            return r;
        });
    }

    /// <summary>Tables as rows of cells, the head line first. "\|" is no border.</summary>
    private static List<List<string[]>> Tables(string text)
    {
        List<List<string[]>> tables = [];
        bool inside = false;
        foreach (string line in text.Split('\n'))
        {
            if (line.StartsWith('|'))
            {
                if (!inside)
                {
                    tables.Add([]);
                }

                if (!Rule().IsMatch(line))
                {
                    tables[^1].Add([.. Border().Split(line.Trim())[1..^1].Select(c => c.Trim())]);
                }
            }

            inside = line.StartsWith('|');
        }

        return tables;
    }

    private static IEnumerable<string> Quoted(string cell) => Code().Matches(cell).Select(m => m.Groups[1].Value);

    private static IEnumerable<string> Names(string cell) =>
        Quoted(cell).Where(c => c.StartsWith('-')).SelectMany(c => c.Split(' ').Where(w => w.StartsWith('-')).Select(w => w.TrimStart('-')));

    private static string FindTop()
    {
        string? folder = AppContext.BaseDirectory;
        while (folder is not null && !File.Exists(Path.Combine(folder, "MicroVm.sln")))
        {
            folder = Path.GetDirectoryName(folder);
        }

        return folder ?? throw new InvalidOperationException("the tests do not lie in the source tree");
    }

    [GeneratedRegex(@"(\w+):\s+`(\w+Tests)`")]
    private static partial Regex Alias();

    [GeneratedRegex("`([^`]+)`")]
    private static partial Regex Code();

    [GeneratedRegex(@"class (\w+)")]
    private static partial Regex Class();

    [GeneratedRegex(@"\[(?:Skippable)?(?:Fact|Theory|Property)[^\n]*\n(?:\s*\[[^\n]*\n|\s*//[^\n]*\n)*\s*public (?:async )?(?:unsafe )?\w+ (\w+)\(")]
    private static partial Regex TestMethod();

    [GeneratedRegex("""@case\("(.+)"\)""")]
    private static partial Regex Case();

    [GeneratedRegex(@"^(podman|docker|ctr|shim|cri|kubernetes) “(.+)”$")]
    private static partial Regex Interop();

    // Titles have commas, too.
    [GeneratedRegex(", (?=[^”]*(?:“|$))")]
    private static partial Regex Separator();

    [GeneratedRegex(@"(?<!\\)\|")]
    private static partial Regex Border();

    [GeneratedRegex(@"^\|[\s:|-]+\|$")]
    private static partial Regex Rule();
}
