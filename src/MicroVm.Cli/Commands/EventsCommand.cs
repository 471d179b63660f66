using MicroVm.Cli.Parsing;
using MicroVm.Sandbox;
using MicroVm.Sandbox.Runtime;
using MicroVm.Sandbox.State;

namespace MicroVm.Cli.Commands;

/// <summary><c>microvm events</c>: a container's figures, and its processes killed for want of memory.</summary>
internal static class EventsCommand
{
    // As the shell has it for a process that SIGPIPE ended.
    private const int NobodyReads = 141;
    private static readonly TimeSpan LastKill = TimeSpan.FromSeconds(10);

    internal static Command Command => new()
    {
        Name = "events",
        Arguments = "<container-id>",
        Help = "display container events such as OOM notifications, cpu, memory, and IO usage statistics",
        MinArguments = 1,
        MaxArguments = 1,
        Flags =
        [
            new("interval", "DURATION", "the stats collection interval (default: 5s)") { Kind = FlagKind.Duration },
            new("stats", null, "display the container's stats then exit"),
        ],
        Run = call =>
        {
            ContainerRuntime runtime = call.Runtime;
            ContainerState state = runtime.State(call.Id).State;
            if (!Quantities.TryDuration(call.Flags.Text("interval") ?? "5s", out TimeSpan interval) || interval <= TimeSpan.Zero)
            {
                throw new SandboxException("duration interval must be greater than 0");
            }

            string first = StatsOutput.Stats(call.Id, runtime.Figures(call.Id));
            if (call.Flags.On("stats"))
            {
                return Output.Write(first) ? 0 : NobodyReads;
            }

            OutOfMemoryWatch watch = runtime.WatchOutOfMemory(call.Id);
            Thread kills = new(() =>
            {
                while (watch.Next())
                {
                    Output.Write(StatsOutput.OutOfMemory(call.Id));
                }
            })
            { IsBackground = true, Name = "oom" };
            kills.Start();
            int status = Repeat(runtime, state, interval, call.Log);

            // The last kill may be what ended the container.
            _ = status == 0 && kills.Join(LastKill);
            return status;
        },
    };

    /// <summary>A line each interval until the container ends.</summary>
    private static int Repeat(ContainerRuntime runtime, ContainerState state, TimeSpan interval, RuntimeLog log)
    {
        while (!state.Init.WaitForEnd(interval))
        {
            try
            {
                if (!Output.Write(StatsOutput.Stats(state.Id, runtime.Figures(state.Id))))
                {
                    return NobodyReads;
                }
            }
            catch (SandboxException e)
            {
                if (state.Init.IsAlive())
                {
                    log.Write(LogLevel.Error, e.Message);
                }
            }
        }

        return 0;
    }
}
