using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;
using MicroVm.Oci;
using MicroVm.Sandbox;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Cli.Commands;

/// <summary><c>microvm run</c>: creates and runs a container in the foreground.</summary>
internal static class RunCommand
{
    internal static Command Create(GlobalOptions globals, Func<string, Func<ParseResult, RuntimeLog, int>, Func<ParseResult, int>> guarded)
    {
        Argument<string> id = new("container-id") { Description = "name of the container, unique on this host" };
        Option<string> bundle = new("--bundle", "-b") { Description = "path to the root of the bundle directory", DefaultValueFactory = _ => "." };
        Option<string?> pidFile = new("--pid-file") { Description = "file to write the process id to" };
        Option<string?> consoleSocket = new("--console-socket") { Description = "refused: belongs to detached containers" };
        Option<bool> detach = new("--detach", "-d") { Description = "refused: not supported yet" };
        Option<int?> preserve = new("--preserve-fds") { CustomParser = Number, Description = "refused: descriptors cannot be passed into a VM" };
        Option<int?> memory = new("--vm-memory") { CustomParser = Number, Description = $"guest memory in MiB (default: {VmShape.DefaultMemoryMiB}, or more for a larger memory limit)" };
        Option<int?> vcpus = new("--vcpus") { CustomParser = Number, Description = "number of vCPUs (default: the CPU quota, rounded up, else 1)" };
        Option<string?> kernel = new("--kernel") { Description = "guest kernel, vmlinux or bzImage" };
        Option<string?> initramfs = new("--initramfs") { Description = "initial RAM file system with the agent" };
        Option<string?> kernelArgs = new("--kernel-args") { Description = "added to the kernel's command line" };
        Option<string?> consoleLog = new("--console-log") { Description = "file to append the VM's serial console to" };
        Command command = new("run", "create and run a container")
        {
            id, bundle, pidFile, consoleSocket, detach, preserve, memory, vcpus, kernel, initramfs, kernelArgs, consoleLog,
        };
        foreach (string accepted in (string[])["--no-pivot", "--no-new-keyring", "--no-subreaper"])
        {
            command.Options.Add(new Option<bool>(accepted) { Description = "accepted for callers of runc; has no effect" });
        }

        command.SetAction(guarded("run", (result, log) =>
        {
            Refuse(result.GetValue(detach), "--detach", "this command runs containers in the foreground only");
            Refuse(result.GetValue(consoleSocket) is not null, "--console-socket", "it needs a detached container");
            Refuse(result.GetValue(preserve) is not (null or 0), "--preserve-fds", "descriptors cannot be passed into a VM");
            return ContainerRun.Run(
                new RunRequest
                {
                    Id = result.GetValue(id)!,
                    Bundle = result.GetValue(bundle)!,
                    Root = globals.Root(result),
                    PidFile = result.GetValue(pidFile),
                    Vm = new VmOptions
                    {
                        MemoryMiB = result.GetValue(memory),
                        Vcpus = result.GetValue(vcpus),
                        Kernel = result.GetValue(kernel),
                        Initramfs = result.GetValue(initramfs),
                        KernelArguments = result.GetValue(kernelArgs),
                        ConsoleLog = result.GetValue(consoleLog),
                    },
                },
                log);
        }));
        return command;
    }

    private static int? Number(ArgumentResult result)
    {
        string text = result.Tokens.Count == 1 ? result.Tokens[0].Value : "";
        if (int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int value))
        {
            return value;
        }

        result.AddError($"{(result.Parent as OptionResult)?.IdentifierToken?.Value}: \"{text}\" is not a whole number");
        return null;
    }

    private static void Refuse(bool given, string option, string reason)
    {
        if (given)
        {
            throw SpecException.Unsupported(option, reason);
        }
    }
}
