using MicroVm.Cli.Parsing;
using MicroVm.Oci;
using MicroVm.Sandbox;
using MicroVm.Sandbox.Configuration;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Cli.Commands;

/// <summary>The commands of a container's life: create, start, run, kill, delete, pause, resume.</summary>
internal static class LifecycleCommands
{
    private const string Id = "<container-id>";

    private static Flag[] CreateFlags =>
    [
        new("bundle, b", "DIR", "path to the root of the bundle directory (default: the working folder)"),
        new("console-socket", "SOCKET", "path to an AF_UNIX socket which will receive the master of the console's pseudo-terminal"),
        new("pid-file", "FILE", "file to write the process id to"),
        new("pidfd-socket", "SOCKET", "path to an AF_UNIX socket which will receive a pidfd of the container's process on the host"),
        new("preserve-fds", "N", "refused: descriptors cannot be passed into a VM") { Kind = FlagKind.Number },
        new("no-pivot", null, "accepted for callers of runc; has no effect"),
        new("no-new-keyring", null, "accepted for callers of runc; has no effect"),
        new("vm-memory", "MIB", $"guest memory in MiB (default: {VmShape.DefaultMemoryMiB}, or more for a larger memory limit)"),
        new("vcpus", "N", "number of vCPUs (default: the CPU quota, rounded up, else 1)"),
        new("cpu-template", "NAME", "what CPUID shows of the processor: host (default), x86-64-v2, x86-64-v3 or x86-64-v4"),
        new("kernel", "FILE", "guest kernel, vmlinux or bzImage"),
        new("initramfs", "FILE", "initial RAM file system to boot in place of the agent's image"),
        new("kernel-args", "TEXT", "added to the kernel's command line"),
        new("start-timeout", "SECONDS", $"how long the guest may take for each step of the start (default: {VmOptions.DefaultStartTimeoutSeconds})"),
        new("console-log", "FILE", "file to append the VM's serial console to"),
    ];

    internal static Command Create => new()
    {
        Name = "create",
        Arguments = Id,
        Help = "create a container",
        MinArguments = 1,
        MaxArguments = 1,
        FailurePrefix = "microvm create failed: ",
        Flags = CreateFlags,
        Run = call =>
        {
            call.Runtime.Create(Request(call));
            return 0;
        },
    };

    internal static Command Run => new()
    {
        Name = "run",
        Arguments = Id,
        Help = "create and run a container",
        MinArguments = 1,
        MaxArguments = 1,
        FailurePrefix = "microvm run failed: ",
        Flags =
        [
            .. CreateFlags,
            new("detach, d", null, "detach from the container's process"),
            new("keep", null, "do not delete the container after it exits"),
            new("no-subreaper", null, "accepted for callers of runc; has no effect"),
            new("trace", "FILE", "write a trace of the start, in Chrome's format, when the command ends (microvm trace render)"),
        ],
        Run = call => call.Runtime.Run(Request(call)),
    };

    internal static Command Start => new()
    {
        Name = "start",
        Arguments = Id,
        Help = "execute the user defined process in a created container",
        MinArguments = 1,
        MaxArguments = 1,
        Run = Simple((runtime, call) => runtime.Start(call.Id)),
    };

    internal static Command Kill => new()
    {
        Name = "kill",
        Arguments = Id + " [signal]",
        Help = "send a signal (default: SIGTERM) to the container's init process",
        MinArguments = 1,
        MaxArguments = 2,
        Flags = [new("all, a", null, "send the signal to all processes of the container")],
        Run = Simple((runtime, call) => runtime.Kill(call.Id, call.Arguments.Count > 1 && call.Arguments[1].Length > 0 ? call.Arguments[1] : "SIGTERM", call.Flags.On("all"))),
    };

    internal static Command Delete => new()
    {
        Name = "delete",
        Arguments = Id,
        Help = "delete any resources held by a container",
        MinArguments = 1,
        MaxArguments = 1,
        Flags = [new("force, f", null, "end the container first if it still runs (SIGKILL)")],
        Run = Simple((runtime, call) => runtime.Delete(call.Id, call.Flags.On("force"))),
    };

    internal static Command Pause => new()
    {
        Name = "pause",
        Arguments = Id,
        Help = "suspend all processes of a container",
        MinArguments = 1,
        MaxArguments = 1,
        Run = Simple((runtime, call) => runtime.Pause(call.Id)),
    };

    internal static Command Resume => new()
    {
        Name = "resume",
        Arguments = Id,
        Help = "resume all processes of a container",
        MinArguments = 1,
        MaxArguments = 1,
        Run = Simple((runtime, call) => runtime.Resume(call.Id)),
    };

    internal static Command Checkpoint => Refused("checkpoint", "checkpoint a running container");

    internal static Command Restore => Refused("restore", "restore a container from a checkpoint");

    private static Func<Invocation, int> Simple(Action<Sandbox.Runtime.ContainerRuntime, Invocation> action) => call =>
    {
        action(call.Runtime, call);
        return 0;
    };

    private static Command Refused(string name, string help) => new()
    {
        Name = name,
        Arguments = Id,
        Help = help + " (refused: not supported)",
        Run = _ => throw SpecException.Unsupported(name, "CRIU works on processes of the host, a container's are in its VM"),
        Flags =
        [
            .. ((string[])["image-path", "work-path", "parent-path", "console-socket", "bundle, b", "pid-file", "manage-cgroups-mode", "page-server", "empty-ns", "status-fd", "lsm-profile", "lsm-mount-context"])
                .Select(f => new Flag(f, "VALUE", "refused with the command")),
            .. ((string[])["leave-running", "tcp-established", "ext-unix-sk", "shell-job", "lazy-pages", "file-locks", "pre-dump", "auto-dedup", "detach, d", "no-subreaper", "no-pivot"])
                .Select(f => new Flag(f, null, "refused with the command")),
        ],
    };

    private static RunRequest Request(Invocation call)
    {
        FlagValues flags = call.Flags;
        flags.RefusePreservedDescriptors();
        RuntimeConfiguration host = call.Configuration;
        return new RunRequest
        {
            Id = call.Id,
            Bundle = flags.Text("bundle") ?? ".",
            PidFile = flags.Text("pid-file"),
            ConsoleSocket = flags.Text("console-socket"),
            PidfdSocket = flags.Text("pidfd-socket"),
            Detach = flags.On("detach"),
            Keep = flags.On("keep"),
            Trace = flags.Text("trace"),
            Vm = new VmOptions
            {
                MemoryMiB = flags.Number("vm-memory"),
                Vcpus = flags.Number("vcpus"),
                DefaultMemoryMiB = host.MemoryMiB,
                DefaultVcpus = host.Vcpus,
                MaxVcpus = host.MaxVcpus,
                AllowedAnnotations = host.AllowedAnnotations is { Count: > 0 } allowed ? string.Join(',', allowed) : null,
                PrivateImages = host.PrivateImages ?? false,
                Template = host.Template ?? false,
                MakesTemplates = host.MakesTemplates,
                CpuTemplate = flags.Text("cpu-template") ?? host.CpuTemplate,
                Kernel = flags.Text("kernel") ?? host.Kernel,
                Initramfs = flags.Text("initramfs"),
                KernelArguments = $"{host.KernelArguments} {flags.Text("kernel-args")}".Trim() is { Length: > 0 } arguments ? arguments : null,
                StartTimeoutSeconds = flags.Number("start-timeout") ?? host.StartTimeoutSeconds,
                ConsoleLog = flags.Text("console-log"),
            },
        };
    }
}
