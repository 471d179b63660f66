using System.CommandLine;
using System.CommandLine.Help;
using MicroVm.Cli.Commands;
using MicroVm.Cli.Doctor;
using MicroVm.Linux;
using MicroVm.Oci;
using MicroVm.Sandbox;

namespace MicroVm.Cli;

/// <summary>Parses the command line, runs the command, and tells failures the way runc does.</summary>
internal static class CommandLine
{
    private const int Failure = 1;

    /// <summary>Runs a command line; returns the exit status.</summary>
    internal static int Run(string[] args)
    {
        GlobalOptions globals = new();
        Option<bool> version = new("--version", "-v") { Description = "print the version" };
        RootCommand root = new("Runs OCI containers, each in a micro-VM of its own.");
        for (int i = root.Options.Count - 1; i >= 0; i--)
        {
            if (root.Options[i] is VersionOption)
            {
                root.Options.RemoveAt(i);
            }
        }

        globals.AddTo(root);
        root.Options.Add(version);
        Func<string, Func<ParseResult, RuntimeLog, int>, Func<ParseResult, int>> guarded = (name, action) => result => Guarded(globals, name, result, action);
        root.Subcommands.Add(RunCommand.Create(globals, guarded));
        root.Subcommands.Add(SpecCommand.Create(guarded));
        root.Subcommands.Add(FeaturesCommand.Create(guarded));
        root.Subcommands.Add(DoctorCommand.Create());
        root.SetAction(result =>
        {
            if (result.GetValue(version))
            {
                Output.Write(ProductVersion.Text);
                return 0;
            }

            new HelpAction().Invoke(result);
            return args.Length == 0 ? 0 : Failure;
        });

        ParseResult parsed = root.Parse(args);
        if (parsed.Errors.Count > 0)
        {
            return Guarded(globals, "", parsed, (_, _) => throw new SandboxException(parsed.Errors[0].Message));
        }

        return parsed.Invoke(new InvocationConfiguration { EnableDefaultExceptionHandler = false, ProcessTerminationTimeout = null });
    }

    private static int Guarded(GlobalOptions globals, string name, ParseResult result, Func<ParseResult, RuntimeLog, int> action)
    {
        RuntimeLog log;
        try
        {
            log = globals.OpenLog(result);
        }
        catch (Exception e) when (e is LinuxException or SandboxException)
        {
            Output.WriteError($"{e.Message}\n");
            return Failure;
        }

        using (log)
        {
            try
            {
                return action(result, log);
            }
            catch (Exception e)
            {
                string message = e is SandboxException or SpecException or LinuxException ? e.Message : $"internal error: {e}";
                message = name.Length == 0 ? message : $"microvm {name} failed: {message}";
                log.Write(LogLevel.Error, message);

                // As runc: a log that goes elsewhere does not spare the person at the terminal the reason.
                if (!log.IsStandardError)
                {
                    Output.WriteError(message + "\n");
                }

                return Failure;
            }
        }
    }
}
