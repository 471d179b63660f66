using System.Text;
using MicroVm.Bus.Counters;
using MicroVm.Jail;
using MicroVm.Kvm;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Linux.Tracing;
using MicroVm.Vmm.Boot;
using MicroVm.Vmm.Control;
using MicroVm.Vmm.Machine;
using MicroVm.Vmm.Startup;
using MicroVm.VmmControl;

namespace MicroVm.Vmm;

/// <summary>The executable <c>microvm-vmm</c>: one process, one virtual machine.</summary>
public static class Program
{
    private static string Version => typeof(Program).Assembly.GetName().Version?.ToString(3) ?? "";

    /// <summary>Builds and runs the machine; the exit status is a <see cref="VmmExitCode"/>.</summary>
    public static int Main(string[] args)
    {
        StartClock clock = new();
        int parent = Libc.getppid();
        try
        {
            CommandLineOptions options = CommandLineOptions.Parse(args);
            if (options.ShowHelp || options.ShowVersion)
            {
                Print(options.ShowHelp ? CommandLineOptions.Help : $"microvm-vmm {Version}\n");
                return 0;
            }

            StepRecorder trace = new(isOn: true);
            trace.Add("exec, loader and runtime", clock.Began, clock.Entered);
            VmmConfig config = ReadConfiguration(options, parent, trace);
            VmmExitCode code = Run(config, clock, trace, out string? reason);
            if (reason is not null)
            {
                // The last line, after what closing the devices had to say.
                VmmLog.Write(reason);
            }

            return (int)code;
        }
        catch (Exception e) when (e is ConfigException or BootException or IOException or ArgumentException)
        {
            // KvmUnavailableException and LinuxException are IOExceptions; all of them say what to do.
            VmmLog.Write(e.Message);
            return (int)VmmExitCode.Error;
        }
    }

    private static VmmConfig ReadConfiguration(CommandLineOptions options, int parent, StepRecorder trace)
    {
        using StepScope step = trace.Begin("read the configuration");
        VmmConfig config = ConfigReader.Read(options);
        ProcessSetup.Apply(config, parent);
        return config;
    }

    private static VmmExitCode Run(VmmConfig config, StartClock clock, StepRecorder trace, out string? reason)
    {
        using VirtualMachine machine = MachineBuilder.Build(config, trace);
        _ = new TerminationSignals(machine.Loop, () => machine.End(VmmExitCode.Stopped));
        using VmmControlServer? control = config.Control is { } file
            ? VmmControlServer.Start(file, machine.Loop, new ControlOperations(machine, () => clock.MicrosecondsTo(machine.FirstRunTimestamp)))
            : null;
        using (trace.Begin("start the threads and turn the filters on"))
        {
            machine.StartThreads();
            if (config.FilterSystemCalls)
            {
                RuntimeThreads.WaitUntilBegun();
                SystemCallFilter.TurnOn(config.Saves, grows: machine.Growth is not null);
                machine.NarrowThreads();
            }
        }

        VmmExitCode code = machine.Run();
        reason = machine.EndReason;
        return code;
    }

    private static unsafe void Print(string text)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        fixed (byte* p = bytes)
        {
            _ = Libc.write(1, p, (nuint)bytes.Length);
        }
    }
}
