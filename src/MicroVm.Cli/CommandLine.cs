using MicroVm.Cli.Commands;
using MicroVm.Cli.Doctor;
using MicroVm.Cli.Install;
using MicroVm.Cli.Parsing;
using MicroVm.Linux;
using MicroVm.Oci;
using MicroVm.Sandbox;

namespace MicroVm.Cli;

/// <summary>Parses the command line, runs the command, and tells failures the way runc does.</summary>
internal static class CommandLine
{
    private const int Failure = 1, UnknownCommand = 3;

    /// <summary>The commands, in the help's order; only the one that is asked for is made.</summary>
    private static readonly (string Name, Func<Command> Make)[] Table =
    [
        ("create", static () => LifecycleCommands.Create),
        ("run", static () => LifecycleCommands.Run),
        ("start", static () => LifecycleCommands.Start),
        ("kill", static () => LifecycleCommands.Kill),
        ("delete", static () => LifecycleCommands.Delete),
        ("pause", static () => LifecycleCommands.Pause),
        ("resume", static () => LifecycleCommands.Resume),
        ("checkpoint", static () => LifecycleCommands.Checkpoint),
        ("restore", static () => LifecycleCommands.Restore),
        ("exec", static () => ExecCommand.Command),
        ("state", static () => InspectCommands.State),
        ("list", static () => InspectCommands.List),
        ("ps", static () => PsCommand.Command),
        ("update", static () => UpdateCommand.Command),
        ("events", static () => EventsCommand.Command),
        ("spec", static () => SpecCommand.Command),
        ("template", static () => TemplateCommand.Command),
        ("snapshot", static () => SnapshotCommand.Command),
        ("trace", static () => TraceCommand.Command),
        ("features", static () => FeaturesCommand.Command),
        ("install", static () => InstallCommand.Command),
        ("doctor", static () => DoctorCommand.Command),
    ];

    /// <summary>Every command, made anew.</summary>
    internal static IReadOnlyList<Command> Commands => Array.ConvertAll(Table, c => c.Make());

    /// <summary>Runs a command line; returns the exit status.</summary>
    internal static int Run(string[] args)
    {
        FlagValues globals = new();
        int read;
        try
        {
            read = ArgumentParser.Read(args, GlobalFlags.All, globals);
        }
        catch (SandboxException e)
        {
            Output.Write($"Incorrect Usage. {e.Message}\n\n{HelpText.Of(Commands, GlobalFlags.All)}");
            return Fail(null, e.Message, Failure);
        }

        if (globals.On("version"))
        {
            Output.Write(ProductVersion.Text);
            return 0;
        }

        if (globals.On("help") || read == args.Length || args[read] == "help")
        {
            Output.Write(HelpText.Of(Commands, GlobalFlags.All));
            return 0;
        }

        RuntimeLog log;
        try
        {
            log = GlobalFlags.OpenLog(globals);
        }
        catch (SandboxException e)
        {
            return Fail(null, e.Message, Failure);
        }

        using (log)
        {
            return Run(args[read], args[(read + 1)..], globals, log);
        }
    }

    private static int Run(string name, string[] args, FlagValues globals, RuntimeLog log)
    {
        if (Array.Find(Table, c => c.Name == name).Make?.Invoke() is not { } command)
        {
            return Fail(log, $"No help topic for '{name}'\n", UnknownCommand);
        }

        FlagValues flags = new();
        int read;
        try
        {
            Flag[] known = [.. command.Flags, new Flag("help, h", null, "show help")];
            args = command.FlagsEndAtFirstArgument ? args : ArgumentOrder.FlagsFirst(args, known);
            read = ArgumentParser.Read(args, known, flags);
        }
        catch (SandboxException e)
        {
            Output.Write($"Incorrect Usage: {e.Message}\n\n{HelpText.Of(command)}");
            return Fail(log, e.Message, Failure);
        }

        if (flags.On("help"))
        {
            Output.Write(HelpText.Of(command));
            return 0;
        }

        if (WrongCount(command, args.Length - read) is { } problem)
        {
            Output.Write($"Incorrect Usage.\n\n{HelpText.Of(command)}");
            return Fail(log, problem, Failure);
        }

        try
        {
            return command.Run(new Invocation(globals, flags, args[read..], log));
        }
        catch (Exception e)
        {
            string message = e is SandboxException or SpecException or LinuxException ? e.Message : $"internal error: {e}";
            return Fail(log, command.FailurePrefix + message, command.FailureStatus);
        }
    }

    /// <summary>Tells why a command failed; without a log, which is not there yet, on standard error.</summary>
    private static int Fail(RuntimeLog? log, string message, int status)
    {
        if (log is null)
        {
            FailWithoutLog(message);
            return status;
        }

        log.Write(LogLevel.Error, message);

        // As runc: a log that goes elsewhere does not spare the person at the terminal the reason.
        if (!log.IsStandardError)
        {
            Output.WriteError(message + "\n");
        }

        return status;
    }

    private static void FailWithoutLog(string message)
    {
        try
        {
            using RuntimeLog log = RuntimeLog.Open(null, json: false, debug: false);
            log.Write(LogLevel.Error, message);
        }
        catch (LinuxException)
        {
            // Standard error is closed: the exit status tells.
        }
    }

    private static string? WrongCount(Command command, int count)
    {
        string? problem = command.MinArguments == command.MaxArguments && count != command.MinArguments ? $"requires exactly {command.MinArguments}"
            : count < command.MinArguments ? $"requires a minimum of {command.MinArguments}"
            : count > command.MaxArguments ? $"requires a maximum of {command.MaxArguments}"
            : null;
        return problem is null ? null : $"{Environment.GetCommandLineArgs()[0]}: \"{command.Name}\" {problem} argument(s)";
    }
}
