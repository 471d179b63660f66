using System.Globalization;
using System.Security;
using System.Text;
using MicroVm.Sandbox;
using MicroVm.Sandbox.Tracing;

namespace MicroVm.Cli.Tracing;

/// <summary>Draws a trace: a band for each process, in it a lane for each thread, in it a row for each depth. A pointer on a step shows its times.</summary>
internal static class TimelineSvg
{
    private const int Width = 1600;
    private const int Left = 10;
    private const int Row = 16;
    private const int Heading = 22;
    private const int Axis = 24;
    private const double LetterWidth = 5.6;
    private const int Ticks = 16;
    private const long LongestMicroseconds = 86_400_000_000;
    private static readonly string[] Colors = ["#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#e15759", "#76b7b2"];

    /// <summary>The picture.</summary>
    /// <exception cref="SandboxException">There is nothing in the trace, or a time in it is longer than a day.</exception>
    internal static string Render(TraceDocument trace)
    {
        List<TraceEvent> steps = [.. trace.Events.Where(e => e.Phase is TraceEvent.Complete or TraceEvent.Instant)];
        if (steps.Count == 0)
        {
            throw new SandboxException("the trace has no steps");
        }

        if (steps.Any(s => s.Time is < 0 or > LongestMicroseconds || s.Duration is < 0 or > LongestMicroseconds))
        {
            throw new SandboxException("the trace has a time that is negative or longer than a day");
        }

        long length = Math.Max(1, steps.Max(TraceLane.End));
        StringBuilder body = new();
        int y = Axis;
        foreach (IGrouping<int, TraceEvent> process in steps.GroupBy(s => s.Process).OrderBy(g => g.Key))
        {
            string name = trace.Events.FirstOrDefault(e => e.Phase == TraceEvent.Metadata && e.Name == TraceEvent.ProcessName && e.Process == process.Key)?.Arguments?.Name ?? $"process {process.Key}";
            body.Append(CultureInfo.InvariantCulture, $"<text class=\"process\" x=\"{Left}\" y=\"{y + 15}\">{Escape(name)}</text>\n");
            y += Heading;
            foreach (IGrouping<int, TraceEvent> lane in process.GroupBy(s => s.Thread).OrderBy(g => g.Min(s => s.Time)))
            {
                TraceLane rows = new(lane);
                foreach ((TraceEvent step, int depth) in rows.Steps)
                {
                    Draw(body, step, y + (depth * Row), length, Colors[(process.Key & int.MaxValue) % Colors.Length]);
                }

                y += (rows.Rows * Row) + 4;
            }
        }

        StringBuilder svg = new();
        svg.Append(CultureInfo.InvariantCulture, $"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{Width + (2 * Left)}\" height=\"{y + Left}\" font-family=\"sans-serif\" font-size=\"10\">\n");
        svg.Append("<style>.process{font-size:13px;font-weight:bold}.step{stroke:#fff;stroke-width:.5}.label{fill:#fff}.tick{stroke:#ccc}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n");
        DrawAxis(svg, length, y);
        return svg.Append(body).Append("</svg>\n").ToString();
    }

    private static void Draw(StringBuilder svg, TraceEvent step, int y, long length, string color)
    {
        double x = X(step.Time, length), width = Math.Max(1, X(TraceLane.End(step), length) - x);
        string title = step.Phase == TraceEvent.Instant
            ? string.Create(CultureInfo.InvariantCulture, $"{step.Name}: at {step.Time / 1000.0:0.000} ms")
            : string.Create(CultureInfo.InvariantCulture, $"{step.Name}: {(step.Duration ?? 0) / 1000.0:0.000} ms, from {step.Time / 1000.0:0.000} ms");
        svg.Append(CultureInfo.InvariantCulture, $"<g><title>{Escape(title)}</title><rect class=\"step\" x=\"{x:0.0}\" y=\"{y}\" width=\"{width:0.0}\" height=\"{Row - 1}\" fill=\"{color}\"/>");
        string label = string.Create(CultureInfo.InvariantCulture, $"{step.Name} {(step.Duration ?? 0) / 1000.0:0.0}");
        int letters = (int)((width - 4) / LetterWidth);
        if (letters >= 3)
        {
            svg.Append(CultureInfo.InvariantCulture, $"<text class=\"label\" x=\"{x + 2:0.0}\" y=\"{y + 11}\">{Escape(label[..Math.Min(letters, label.Length)])}</text>");
        }

        svg.Append("</g>\n");
    }

    private static void DrawAxis(StringBuilder svg, long length, int height)
    {
        long step = 1;
        while (length / step > Ticks)
        {
            // 1, 2, 5, 10, ...
            step = step.ToString(CultureInfo.InvariantCulture)[0] == '2' ? step / 2 * 5 : step * 2;
        }

        for (long time = 0; time <= length; time += step)
        {
            double x = X(time, length);
            svg.Append(CultureInfo.InvariantCulture, $"<line class=\"tick\" x1=\"{x:0.0}\" x2=\"{x:0.0}\" y1=\"{Axis - 6}\" y2=\"{height}\"/><text x=\"{x + 2:0.0}\" y=\"12\">{time / 1000.0:0.###} ms</text>\n");
        }
    }

    private static double X(long time, long length) => Left + ((double)time / length * Width);

    // Controls are not allowed in XML 1.0, escaped or not.
    private static string Escape(string text) => SecurityElement.Escape(string.Concat(text.Select(c => char.IsControl(c) || char.IsSurrogate(c) || c >= '\ufffe' ? '?' : c)))!;
}
