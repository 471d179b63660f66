using MicroVm.Cli.Commands;
using MicroVm.Cli.Doctor;
using MicroVm.Cli.Parsing;
using MicroVm.Linux;
using MicroVm.Oci;
using MicroVm.Sandbox;

namespace MicroVm.Cli;

/// <summary>Parses the command line, runs the command, and tells failures the way runc does.</summary>
internal static class CommandLine
{
    private const int Failure = 1;

    /// <summary>Every command.</summary>
    internal static readonly IReadOnlyList<Command> Commands =
    [
        .. LifecycleCommands.All, ExecCommand.Command, .. InspectCommands.All, PsCommand.Command, UpdateCommand.Command, EventsCommand.Command, SpecCommand.Command, FeaturesCommand.Command, DoctorCommand.Command,
    ];

    private static readonly Flag Help = new("help, h", null, "show help");

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
            Output.WriteError($"{e.Message}\n");
            return Failure;
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
        catch (Exception e) when (e is LinuxException or SandboxException)
        {
            Output.WriteError($"{e.Message}\n");
            return Failure;
        }

        using (log)
        {
            return Run(args[read], args[(read + 1)..], globals, log);
        }
    }

    private static int Run(string name, string[] args, FlagValues globals, RuntimeLog log)
    {
        Command? command = Commands.FirstOrDefault(c => c.Name == name);
        try
        {
            if (command is null)
            {
                throw new SandboxException($"microvm has no command \"{name}\"; microvm --help lists them");
            }

            FlagValues flags = new();
            int read = ArgumentParser.Read(args, [.. command.Flags, Help], flags);
            if (flags.On("help"))
            {
                Output.Write(HelpText.Of(command));
                return 0;
            }

            CheckCount(command, args.Length - read);
            return command.Run(new Invocation(globals, flags, args[read..], log));
        }
        catch (Exception e)
        {
            string message = e is SandboxException or SpecException or LinuxException ? e.Message : $"internal error: {e}";
            message = (command?.FailurePrefix ?? "") + message;
            log.Write(LogLevel.Error, message);

            // As runc: a log that goes elsewhere does not spare the person at the terminal the reason.
            if (!log.IsStandardError)
            {
                Output.WriteError(message + "\n");
            }

            return command?.FailureStatus ?? Failure;
        }
    }

    private static void CheckCount(Command command, int count)
    {
        string? problem = command.MinArguments == command.MaxArguments && count != command.MinArguments ? $"requires exactly {command.MinArguments}"
            : count < command.MinArguments ? $"requires a minimum of {command.MinArguments}"
            : count > command.MaxArguments ? $"requires a maximum of {command.MaxArguments}"
            : null;
        if (problem is not null)
        {
            throw new SandboxException($"microvm: \"{command.Name}\" {problem} argument(s)");
        }
    }
}
