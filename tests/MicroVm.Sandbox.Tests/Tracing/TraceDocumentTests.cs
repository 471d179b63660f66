using System.Text;
using System.Text.Json;
using FsCheck;
using FsCheck.Fluent;
using MicroVm.Json;
using MicroVm.Sandbox.Tracing;
using MicroVm.VmmControl;

namespace MicroVm.Sandbox.Tests.Tracing;

public class TraceDocumentTests
{
    [Fact]
    public void A_document_is_Chromes_format()
    {
        TraceTrack command = new() { Process = "microvm 7", Steps = [Step("inner \"quoted\"", 3_500, 5_999, 4), Step("outer", 2_000, 9_000, 4), Step("a mark", 2_100, 2_100, 5)] };
        string text = Encoding.UTF8.GetString(JsonRecords.Write(TraceDocument.Of([command, new TraceTrack { Process = "guest" }], 1_000)));
        Assert.Equal(
            "{\"traceEvents\":[" +
            "{\"name\":\"process_name\",\"ph\":\"M\",\"ts\":0,\"pid\":1,\"tid\":0,\"args\":{\"name\":\"microvm 7\"}}," +
            "{\"name\":\"outer\",\"ph\":\"X\",\"ts\":1,\"dur\":7,\"pid\":1,\"tid\":4}," +
            "{\"name\":\"a mark\",\"ph\":\"i\",\"ts\":1,\"pid\":1,\"tid\":5,\"s\":\"t\"}," +
            "{\"name\":\"inner \\\"quoted\\\"\",\"ph\":\"X\",\"ts\":2,\"dur\":2,\"pid\":1,\"tid\":4}," +
            "{\"name\":\"process_name\",\"ph\":\"M\",\"ts\":0,\"pid\":2,\"tid\":0,\"args\":{\"name\":\"guest\"}}" +
            "],\"displayTimeUnit\":\"ms\"}",
            text);
        TraceDocument read = JsonRecords.Read<TraceDocument>(Encoding.UTF8.GetBytes(text));
        Assert.Equal(text, Encoding.UTF8.GetString(JsonRecords.Write(read)));
    }

    [Fact]
    public void Malformed_documents_are_refused()
    {
        string[] documents = ["", "[]", "{\"traceEvents\":[null]}", "{\"traceEvents\":[{\"ts\":\"1\"}]}", "{\"traceEvents\":[{\"ts\":1.5}]}"];
        Assert.All(documents, d => Assert.ThrowsAny<JsonException>(() => JsonRecords.Read<TraceDocument>(Encoding.UTF8.GetBytes(d))));
    }

    /// <summary>What lies in another step does so when both are rounded to microseconds.</summary>
    [Fact]
    public void Rounding_keeps_the_nesting() => Prop.ForAll(ArbMap.Default.ArbFor<(NonNegativeInt A, NonNegativeInt B, NonNegativeInt C, NonNegativeInt D)>(), t =>
    {
        long a = t.A.Get, b = a + t.B.Get, c = b + t.C.Get + 1;
        long[] times = [a, b, c, c + t.D.Get + 1];
        TraceDocument document = TraceDocument.Of([new TraceTrack { Steps = [Step("inner", times[1], times[2], 1), Step("outer", times[0], times[3], 1)] }], 0);
        TraceEvent outer = document.Events.Single(e => e.Name == "outer"), inner = document.Events.Single(e => e.Name == "inner");
        return outer.Time <= inner.Time && inner.Time + inner.Duration <= outer.Time + outer.Duration;
    }).QuickCheckThrowOnFailure();

    [Fact]
    public void Steps_of_a_hostile_guest_are_bounded()
    {
        IReadOnlyList<TraceStep> kept = UntrustedSteps.Check(
        [
            Step("before", 0, 99, 1), Step("after", 201, 300, 1), Step("backwards", 150, 140, 1), Step("everything", long.MinValue, long.MaxValue, 1),
            Step("\u001b[31m\n" + new string('x', 1000), 150, 150, 1),
        ], 100, 200);
        Assert.Equal([(100, 200), (150, 150)], kept.Select(s => (s.Begin, s.End)));
        Assert.Equal("?[31m?" + new string('x', 90), kept[1].Name);
        Assert.Equal(512, UntrustedSteps.Check(Enumerable.Repeat(Step("many", 100, 101, 1), 10_000), 100, 200).Count);
    }

    [Fact]
    public void The_shortest_call_says_how_far_the_clocks_are_apart()
    {
        GuestClock clock = new GuestClock(0, long.MaxValue).OrBetter(1_000, 50, 1_400).OrBetter(2_000, 1_060, 2_020).OrBetter(3_000, 9, 4_000);
        Assert.Equal(new GuestClock(950, 10), clock);

        // A guest may say any time.
        Assert.Equal(10, new GuestClock(0, long.MaxValue).OrBetter(1_000, long.MinValue, 1_020).Error);
    }

    private static TraceStep Step(string name, long begin, long end, int thread) => new() { Name = name, Begin = begin, End = end, Thread = thread };
}
