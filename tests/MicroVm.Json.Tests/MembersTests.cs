using System.Text;

namespace MicroVm.Json.Tests;

/// <summary>Documents are read by tables, or are not as they should be.</summary>
public sealed class MembersTests
{
    private static readonly Members<Point> Strict = new(
        static () => new Point(),
        ("x", static (v, ref json) => v.X = json.Int32()),
        ("y", static (v, ref json) => v.Y = json.Int32()),
        ("next", static (v, ref json) => v.Next = json.Object(Strict!)),
        ("rest", static (v, ref json) => v.Rest = json.List(Strict!)))
    {
        IsWhole = static v => v.X is not null,
    };

    private static readonly Members<Point> Lenient = Members.Of<Point>(("x", static (v, ref json) => v.X = json.Int32()));

    [Fact]
    public void Members_go_where_the_table_says()
    {
        Point read = Read("""{"x":1,"next":{"y":-2,"x":3},"rest":[{"x":4},null],"y":null}""", Strict)!;
        Assert.Equal((1, null, 3, -2), (read.X, read.Y, read.Next!.X, read.Next.Y));
        Assert.Equal([4, null], read.Rest!.Select(p => p?.X));
    }

    [Theory]
    [InlineData("""{"x":1,"z":{"deep":[1,{"x":2}]}}""", 1)]
    [InlineData("""{"z":null}""", null)]
    public void Members_that_are_not_in_the_table_are_passed_over_where_it_says_so(string json, int? x)
    {
        Assert.Equal(x, Read(json, Lenient)!.X);
        Assert.Null(Read(json, Strict));
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
    public void What_is_not_as_it_should_be_is_nothing(string json) => Assert.Null(Read(json, Strict));

    private static Point? Read(string json, Members<Point> members) => new TableDocument<Point>(members, () => throw new InvalidOperationException("the tables alone")).TryRead(Encoding.UTF8.GetBytes(json));

    private sealed class Point
    {
        public int? X { get; set; }

        public int? Y { get; set; }

        public Point? Next { get; set; }

        public List<Point>? Rest { get; set; }
    }
}
