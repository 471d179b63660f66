using MicroVm.Protocol.Generator;
using Xunit;

namespace MicroVm.Ttrpc.Tests;

public sealed class ProtoServiceTests
{
    private const string Head = "syntax = \"proto3\";\npackage a.b.v1;\noption csharp_namespace = \"A.B\";\nmessage Nothing {}\nmessage Some {\n  string s = 1;\n}\n";

    [Fact]
    public void EachCallHasItsCommentAndNames()
    {
        ProtoService service = Parse("  // Says\n  // something.\n  rpc Say(Some) returns (Nothing);\n\n  rpc Ask(Nothing) returns (Some) {}\n  // Waits. No deadline.\n  rpc Wait(Some) returns (Some);");
        Assert.Equal(("T", "a.b.v1.T", "A.B"), (service.Name, service.FullName, service.CSharpNamespace));
        Assert.Equal(
            [("Say", "Some", "Nothing", "Says something.", false), ("Ask", "Nothing", "Some", "", false), ("Wait", "Some", "Some", "Waits. No deadline.", true)],
            service.Calls.Select(c => (c.Name, c.Request, c.Response, c.Comment, c.Waits)));
        Assert.Equal(["Nothing"], service.EmptyMessages);
    }

    [Fact]
    public void ClientsTakeNoArgumentForAnEmptyRequestAndWaitWithoutADeadline()
    {
        string client = StubWriter.Client(Parse("  rpc Ask(Nothing) returns (Some);\n  // No deadline.\n  rpc Wait(Some) returns (Some);"));
        Assert.Contains("public Some Ask(global::System.TimeSpan? timeout = null) =>", client, StringComparison.Ordinal);
        Assert.Contains("\"Ask\", new Nothing(), Some.Parser, timeout ?? DefaultTimeout);", client, StringComparison.Ordinal);
        Assert.Contains("\"Wait\", request, Some.Parser, timeout ?? global::System.Threading.Timeout.InfiniteTimeSpan);", client, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("rpc Say(stream Some) returns (Some);")]
    [InlineData("rpc Say(google.protobuf.Empty) returns (Some);")]
    [InlineData("rpc Say(Some);")]
    [InlineData("option deprecated = true;")]
    public void WhatIsNotUnderstoodIsRefusedByItsLine(string line)
    {
        Assert.Null(ProtoService.Parse(Head + "service T {\n  " + line + "\n}\n", out string? problem));
        Assert.Contains(line, problem, StringComparison.Ordinal);
    }

    [Fact]
    public void AFileWithoutAServiceHasNoStubs()
    {
        Assert.Null(ProtoService.Parse(Head, out string? problem));
        Assert.Null(problem);
    }

    private static ProtoService Parse(string calls)
    {
        ProtoService? service = ProtoService.Parse(Head + "service T {\n" + calls + "\n}\n", out string? problem);
        Assert.Null(problem);
        return service!;
    }
}
