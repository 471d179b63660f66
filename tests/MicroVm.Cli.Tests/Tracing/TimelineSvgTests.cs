using System.Globalization;
using System.Xml.Linq;
using MicroVm.Cli.Tracing;
using MicroVm.Sandbox;
using MicroVm.Sandbox.Tracing;

namespace MicroVm.Cli.Tests.Tracing;

public class TimelineSvgTests
{
    private static readonly XNamespace Svg = "http://www.w3.org/2000/svg";

    [Fact]
    public void A_step_lies_below_the_one_that_it_is_part_of()
    {
        XDocument picture = Draw(
            Step("outer", 0, 1000), Step("inner", 100, 300), Step("next", 400, 500), Step("innermost", 450, 10), Step("after", 1000, 1000),
            new TraceEvent { Name = "mark", Phase = TraceEvent.Instant, Time = 50, Process = 1, Thread = 2 },
            new TraceEvent { Name = TraceEvent.ProcessName, Phase = TraceEvent.Metadata, Process = 1, Arguments = new TraceArguments { Name = "microvm <1>" } });
        Assert.Contains(picture.Descendants(Svg + "text"), t => t.Value == "microvm <1>");
        (double X, double Y, double Width) outer = Place(picture, "outer"), inner = Place(picture, "inner"), next = Place(picture, "next");
        (double X, double Y, double Width) innermost = Place(picture, "innermost"), after = Place(picture, "after"), mark = Place(picture, "mark");
        Assert.True(outer.Y < inner.Y && inner.Y == next.Y && next.Y < innermost.Y);
        Assert.Equal(outer.Y, after.Y);
        Assert.True(mark.Y > innermost.Y, "another lane begins below");
        Assert.True(outer.X < inner.X && inner.X + inner.Width <= next.X + 0.2 && next.X + next.Width <= outer.X + outer.Width + 0.2);
        Assert.Equal(800, outer.Width, 1);
        Assert.Equal(outer.X + 800, after.X, 1);
    }

    [Fact]
    public void Names_cannot_break_out_of_the_picture()
    {
        string name = "</title><script>\u0000\u001b\ud800\uffff&\"'";
        XDocument picture = Draw(Step(name, 0, 1_000_000));
        Assert.Empty(picture.Descendants(Svg + "script"));
        Assert.StartsWith("</title><script>????&\"': 1000.000 ms", picture.Descendants(Svg + "title").Single().Value, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(-1, 5)]
    [InlineData(5, -1)]
    [InlineData(long.MaxValue, 5)]
    [InlineData(5, long.MaxValue)]
    public void Impossible_times_are_refused(long time, long duration) => Assert.Throws<SandboxException>(() => Draw(Step("step", time, duration)));

    [Fact]
    public void An_empty_trace_is_refused() => Assert.Throws<SandboxException>(() => Draw());

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(999)]
    [InlineData(86_400_000_000)]
    public void The_axis_has_few_ticks(long length) => Assert.InRange(Draw(Step("step", 0, length)).Descendants(Svg + "line").Count(), 1, 17);

    private static TraceEvent Step(string name, long time, long duration) => new() { Name = name, Time = time, Duration = duration, Process = 1, Thread = 1 };

    private static XDocument Draw(params TraceEvent[] events) => XDocument.Parse(TimelineSvg.Render(new TraceDocument { Events = events }));

    private static (double X, double Y, double Width) Place(XDocument picture, string name)
    {
        XElement rect = picture.Descendants(Svg + "g").Single(g => g.Element(Svg + "title")!.Value.StartsWith(name + ":", StringComparison.Ordinal)).Element(Svg + "rect")!;
        return (Number("x"), Number("y"), Number("width"));

        double Number(string attribute) => double.Parse(rect.Attribute(attribute)!.Value, CultureInfo.InvariantCulture);
    }
}
