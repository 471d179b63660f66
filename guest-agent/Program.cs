using MicroVm.Agent.Boot;
using MicroVm.Agent.Cgroups;
using MicroVm.Agent.Child;
using MicroVm.Agent.Containers;
using MicroVm.Agent.Rootfs;
using MicroVm.Agent.Service;
using MicroVm.Agent.Stdio;
using MicroVm.Linux;
using MicroVm.Linux.Child;
using MicroVm.Linux.Native;
using MicroVm.Linux.Tracing;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Agent;

/// <summary>PID 1 of a micro-VM.</summary>
public static class Program
{
    /// <summary>Boots the guest's user space and serves until Shutdown.</summary>
    public static int Main()
    {
        if (Libc.getpid() != 1)
        {
            Log.Error("this is the init of a micro-VM and runs as its process 1 only");
            return 1;
        }

        try
        {
            Run();
        }
        catch (Exception e)
        {
            // Whatever it is, a machine without its agent is of no use to anybody and must not stay.
            Log.Error(e.ToString());
        }

        Machine.PowerOff();
        return 1;
    }

    private static void Run()
    {
        StepRecorder trace = new(isOn: true);
        long began = StepRecorder.Now;

        // No process of a container may look into this one (ptrace(2), "Ptrace access mode checking").
        Check.Result(Libc.prctl(Libc.PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl(PR_SET_DUMPABLE)");
        GuestMounts.Prepare();
        _ = ChildCode.Executable;
        InheritedLimits.Read();
        AgentPaths paths = new();
        Log.Level = BootArguments.Parse(SmallFile.TryRead(null, "/proc/cmdline") ?? "").LogLevel;
        using EventLoop loop = new();
        SafeFd proc = SafeFd.From(Libc.open(paths.Proc, Libc.O_PATH | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0), "open", paths.Proc);
        long prepared = StepRecorder.Now;
        trace.Add("the agent prepares the guest", began, prepared);
        StreamTable streams = new();
        SetupContext context = new(paths, new FileSystems(paths, FileSystems.MountVirtioFs), new ProcessTable(), proc) { Trace = trace };
        using OomWatch oom = new(loop);
        AgentService service = new(loop, context, new CgroupTree(paths.Cgroup), streams, oom, loop.Stop);
        using Reaper reaper = new(loop, context.Processes, service.OnChildExited);
        using SafeFd calls = VsockSocket.Listen(AgentClient.ServicePort);
        using SafeFd stdio = VsockSocket.Listen(AgentClient.StreamPort);
        streams.Listen(loop, stdio);
        using TtrpcServer server = new(loop, service);
        server.Listen(calls, listener => VsockSocket.Accept(listener, out _));
        trace.Add("the agent prepares to serve", prepared, StepRecorder.Now);
        Log.Debug("ready");
        ReadyNotice.Send(loop);
        loop.Run();
    }
}
