using System.Text.RegularExpressions;

namespace MicroVm.Architecture.Tests;

/// <summary>
/// In the libraries where guest memory becomes pointers no type is unsafe as a whole; a member that is says in the line above why it may be.
/// </summary>
public sealed partial class UnsafeTests
{
    private static readonly string[] Projects = ["MicroVm.Memory", "MicroVm.Jail", "MicroVm.Bus", "MicroVm.Virtio", "MicroVm.InstructionEmulator"];

    [Fact]
    public void UnsafeMembersSayWhyTheyAreSafe()
    {
        List<string> wrong = [];
        int members = 0;
        foreach (string file in Projects.SelectMany(Files))
        {
            string[] lines = File.ReadAllLines(file);
            for (int i = 0; i < lines.Length; i++)
            {
                if (!Declaration().IsMatch(lines[i]))
                {
                    continue;
                }

                members++;
                bool isType = Type().IsMatch(lines[i]);
                if (isType || !(IsField(lines[i]) || lines[Above(lines, i)].TrimStart().StartsWith("// Safe: ", StringComparison.Ordinal)))
                {
                    wrong.Add($"{Path.GetFileName(file)}:{i + 1}: {lines[i].Trim()}");
                }
            }
        }

        Assert.Empty(wrong);
        Assert.True(members > 50, $"{members} unsafe members were found");
    }

    /// <summary>Each is about its own member: one that fits many says nothing about any.</summary>
    [Fact]
    public void NoReasonIsGivenTwice()
    {
        string[] reasons =
        [
            .. Projects.SelectMany(Files).SelectMany(File.ReadAllLines).Select(l => l.Trim()).Where(l => l.StartsWith("// Safe: ", StringComparison.Ordinal)),
        ];
        Assert.True(reasons.Length > 40, $"{reasons.Length} reasons were found");
        Assert.All(reasons.CountBy(r => r), r => Assert.True(r.Value <= 2, $"{r.Value} times: {r.Key}"));
    }

    private static IEnumerable<string> Files(string project) =>
        Directory.GetFiles(Path.Combine(Source(), "src", project), "*.cs", SearchOption.AllDirectories)
            .Where(f => !f.Contains("/obj/", StringComparison.Ordinal) && !f.Contains("/bin/", StringComparison.Ordinal));

    // Over attributes, which stand between a comment and its member.
    private static int Above(string[] lines, int line)
    {
        do
        {
            line--;
        }
        while (lines[line].TrimStart().StartsWith('['));
        return line;
    }

    private static bool IsField(string line) => line.EndsWith(';') && !line.Contains('(', StringComparison.Ordinal) && !line.Contains("=>", StringComparison.Ordinal);

    [GeneratedRegex(@"^\s*(\w+ )*unsafe ")]
    private static partial Regex Declaration();

    [GeneratedRegex(@"\bunsafe (partial |readonly |ref )*(class|struct|record|interface)\b")]
    private static partial Regex Type();

    private static string Source([System.Runtime.CompilerServices.CallerFilePath] string path = "") => Path.GetFullPath(Path.Combine(Path.GetDirectoryName(path)!, "..", ".."));
}
