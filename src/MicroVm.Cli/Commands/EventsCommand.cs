using MicroVm.Cli.Parsing;
using MicroVm.Sandbox;
using MicroVm.Sandbox.State;

namespace MicroVm.Cli.Commands;

/// <summary><c>microvm events</c>: a container's figures, and its processes killed for want of memory.</summary>
internal static class EventsCommand
{
    internal static readonly Command Command = new()
    {
        Name = "events",
        Arguments = "<container-id>",
        Help = "display container events such as OOM notifications, cpu, memory, and IO usage statistics",
        MinArguments = 1,
        MaxArguments = 1,
        Flags =
        [
            new("interval", "DURATION", "the stats collection interval (default: 5s)"),
            new("stats", null, "display the container's stats then exit"),
        ],
        Run = call =>
        {
            TimeSpan interval = Quantities.Duration(call.Flags.Text("interval") ?? "5s", "interval");
            Sandbox.Runtime.ContainerRuntime runtime = call.Runtime;
            Output.Write(StatsOutput.Stats(call.Id, runtime.Figures(call.Id)));
            if (call.Flags.On("stats"))
            {
                return 0;
            }

            new Thread(() =>
            {
                while (runtime.WaitForOutOfMemory(call.Id))
                {
                    Output.Write(StatsOutput.OutOfMemory(call.Id));
                }
            })
            { IsBackground = true, Name = "oom" }.Start();
            return Repeat(runtime, call.Id, interval);
        },
    };

    /// <summary>Until the container ends.</summary>
    private static int Repeat(Sandbox.Runtime.ContainerRuntime runtime, string id, TimeSpan interval)
    {
        while (true)
        {
            Thread.Sleep(interval);
            try
            {
                if (runtime.State(id).Status == ContainerStatus.Stopped)
                {
                    return 0;
                }

                Output.Write(StatsOutput.Stats(id, runtime.Figures(id)));
            }
            catch (SandboxException)
            {
                // It ended, or was deleted, in between.
                return 0;
            }
        }
    }
}
