using System.Text.Json.Nodes;

namespace MicroVm.Sandbox.Tests;

/// <summary>The log's formats are runc's.</summary>
public sealed class LogTests
{
    [Fact]
    public void JsonLinesAreAppended()
    {
        using TempFolder folder = new();
        File.WriteAllText(folder["log"], "before\n");
        using (RuntimeLog log = RuntimeLog.Open(folder["log"], json: true, debug: false))
        {
            log.Write(LogLevel.Debug, "not kept");
            log.Write(LogLevel.Warning, "first");
            log.Write(LogLevel.Error, "a \"quoted\" ü\nline");
        }

        string[] lines = File.ReadAllLines(folder["log"]);
        Assert.Equal(["before", "warning:first", "error:a \"quoted\" ü\nline"], lines.Take(1).Concat(lines.Skip(1).Select(l => JsonNode.Parse(l)!).Select(n => $"{n["level"]}:{n["msg"]}")));
        Assert.Matches("""^\{"level":"error","msg":"a \\"quoted\\" .*\\nline","time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)"\}$""", lines[2]);
    }

    [Fact]
    public void WhatAGuestWroteDrivesNoTerminal() => Assert.Equal("a?]0;title?\tb\n?[31mü?", RuntimeLog.Printable("a\u001b]0;title\a\tb\n\u001b[31mü\u009b"));

    [Fact]
    public void TextLinesAreLogrus()
    {
        using TempFolder folder = new();
        using (RuntimeLog log = RuntimeLog.Open(folder["log"], json: false, debug: true))
        {
            log.Write(LogLevel.Debug, "de\tbug\\");
            log.Write(LogLevel.Error, "a \"quoted\"\nline");
        }

        string[] lines = File.ReadAllLines(folder["log"]);
        Assert.Matches("""^time="[^"]+" level=debug msg="de\\tbug\\\\"$""", lines[0]);
        Assert.Matches("""^time="[^"]+" level=error msg="a \\"quoted\\"\\nline"$""", lines[1]);
        Assert.Equal(2, lines.Length);
    }
}
