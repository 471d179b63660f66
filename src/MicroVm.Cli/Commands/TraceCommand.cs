using System.Text;
using System.Text.Json;
using MicroVm.Cli.Parsing;
using MicroVm.Cli.Tracing;
using MicroVm.Json;
using MicroVm.Linux;
using MicroVm.Sandbox;
using MicroVm.Sandbox.Tracing;

namespace MicroVm.Cli.Commands;

/// <summary><c>microvm trace render</c>: the picture of a trace.</summary>
internal static class TraceCommand
{
    internal static Command Command => new()
    {
        Name = "trace",
        Arguments = "render FILE",
        Help = "write an SVG of a trace that run --trace wrote (docs/TRACE.md)",
        MinArguments = 2,
        MaxArguments = 2,
        Flags = [new("output, o", "FILE", "where the SVG goes (default: standard output)")],
        Run = call =>
        {
            if (call.Arguments[0] != "render")
            {
                throw new SandboxException($"\"trace {call.Arguments[0]}\" is not known: use render");
            }

            string path = call.Arguments[1];
            string svg = TimelineSvg.Render(Read(path));
            if (call.Flags.Text("output") is { } output)
            {
                HostFile.Replace(Path.GetFullPath(output), Encoding.UTF8.GetBytes(svg), 0b110_100_100);
            }
            else
            {
                Output.Write(svg);
            }

            return 0;
        },
    };

    private static TraceDocument Read(string path)
    {
        try
        {
            using SafeFd file = RegularFile.Open(path);
            return JsonRecords.Read<TraceDocument>(HostFile.ReadToEnd(file, TraceDocument.MaxBytes, path));
        }
        catch (JsonException e)
        {
            throw new SandboxException($"{path}: is no trace of microvm run --trace: {e.Message}", e);
        }
    }
}
