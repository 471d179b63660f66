using System.Text;

namespace MicroVm.Json.Tests;

/// <summary>Documents are read by tables, or are not as they should be.</summary>
public sealed class MembersTests
{
    [Fact]
    public void Members_go_where_the_table_says()
    {
        Point read = Read("""{"x":1,"next":{"y":-2,"x":3},"rest":[{"x":4},null],"y":null}""")!;
        Assert.Equal((1, null, 3, -2), (read.X, read.Y, read.Next!.X, read.Next.Y));
        Assert.Equal([4, null], read.Rest!.Select(p => p?.X));
    }

    [Theory]
    [InlineData("""{"x":1,"z":{"deep":[1,{"x":2}]}}""", 1)]
    [InlineData("""{"z":null}""", null)]
    public void Members_that_are_not_in_the_table_are_passed_over_where_it_says_so(string json, int? x)
    {
        Assert.Equal(x, Read(json, passOthers: true)!.X);
        Assert.Null(Read(json));
    }

    [Theory]
    [InlineData("""{"y":1}""")]
    [InlineData("""{"x":1,"next":{"y":1}}""")]
    [InlineData("""{"x":"1"}""")]
    [InlineData("""{"x":1.5}""")]
    [InlineData("""{"x":1,"rest":{}}""")]
    [InlineData("""{"x":1""")]
    [InlineData("""{"x":1}{}""")]
    [InlineData("""{"x":1,}""")]
    [InlineData("null")]
    [InlineData("1")]
    [InlineData("")]
    public void Malformed_documents_return_null(string json) => Assert.Null(Read(json));

    [Fact]
    public void Members_are_written_by_the_rows_that_read_them()
    {
        Point point = new() { X = 1, Next = new Point { X = 3, Y = -2 }, Rest = [new Point { X = 4 }, null!] };
        Assert.Equal("""{"x":1,"next":{"x":3,"y":-2},"rest":[{"x":4},null]}""", Encoding.UTF8.GetString(JsonRecords.Write(point)));
    }

    [Theory]
    [InlineData("""{"x":1,"rest":[{"x":2},{"x":"3"}]}""", "$.rest[1].x", "the value has the wrong type or is out of range")]
    [InlineData("""{"x":1,"next":{"x":3,"a b":{"c":[1]}}}""", "$.next['a b']", "unknown field")]
    [InlineData("""{"x":1,"next":{"y":3}}""", "$.next", "a required field is missing: 'x'")]
    [InlineData("""{"x":1,"rest":5}""", "$.rest", "the value has the wrong type or is out of range")]
    [InlineData("1", "$", "the value has the wrong type or is out of range")]
    public void Errors_name_the_place(string json, string path, string text)
    {
        MismatchException error = Assert.Throws<MismatchException>(
            () => new TableDocument<Point>(passOthers: false, () => new Point()).Read(Encoding.UTF8.GetBytes("\n" + json)));
        Assert.Equal((path, text, 1L), (error.Path, error.Message, error.LineNumber));
        Assert.InRange(error.BytePositionInLine!.Value, 1, json.Length);
    }

    private static Point? Read(string json, bool passOthers = false) =>
        new TableDocument<Point>(passOthers, () => new Point { Whole = passOthers }).TryRead(Encoding.UTF8.GetBytes(json));

    private sealed class Point : IJsonRecord
    {
        public bool Whole { get; init; }

        public int? X { get; set; }

        public int? Y { get; set; }

        public Point? Next { get; set; }

        public List<Point>? Rest { get; set; }

        string? IJsonRecord.Missing => Whole || X is not null ? null : "x";

        void IJsonRecord.Members(ref JsonMembers members)
        {
            X = members.Number("x"u8, X);
            Y = members.Number("y"u8, Y);
            Next = members.Object("next"u8, Next);
            Rest = members.Objects("rest"u8, Rest);
        }
    }
}
