using MicroVm.Cli.Parsing;
using MicroVm.Oci;
using MicroVm.Sandbox.Runtime;

namespace MicroVm.Cli.Commands;

/// <summary><c>microvm exec</c>: one more process in a container.</summary>
internal static class ExecCommand
{
    private const int OwnFailure = 255;

    internal static Command Command => new()
    {
        Name = "exec",
        Arguments = "<container-id> <command> [command options]",
        Help = "execute new process inside the container",
        MinArguments = 1,
        FlagsEndAtFirstArgument = true,
        FailureStatus = OwnFailure,
        FailurePrefix = "exec failed: ",
        Flags =
        [
            new("process, p", "FILE", "path to the process.json"),
            new("detach, d", null, "detach from the container's process"),
            new("pid-file", "FILE", "file to write the process id to"),
            new("console-socket", "SOCKET", "path to an AF_UNIX socket which will receive the master of the console's pseudo-terminal"),
            new("tty, t", null, "allocate a pseudo-terminal"),
            new("user, u", "UID[:GID]", "user of the process"),
            new("additional-gids, g", "GID", "additional group of the process; may be repeated") { Kind = FlagKind.Numbers },
            new("env, e", "NAME=VALUE", "environment variable; may be repeated"),
            new("cwd", "DIR", "current working directory in the container"),
            new("cap, c", "NAME", "capability added to the bounding, effective and permitted sets; may be repeated"),
            new("no-new-privs", null, "set the no new privileges value for the process"),
            new("ignore-paused", null, "allow exec in a paused container"),
            new("preserve-fds", "N", "refused: descriptors cannot be passed into a VM") { Kind = FlagKind.Number },
            new("process-label", "LABEL", "refused: the guest kernel has no SELinux"),
            new("apparmor", "PROFILE", "refused: the guest kernel has no AppArmor"),
            new("cgroup", "[CONTROLLER:]CGROUP", "run the process in an (existing) sub-cgroup of the container's"),
            new("pidfd-socket", "SOCKET", "path to an AF_UNIX socket which will receive a pidfd of the process on the host"),
            new("no-subreaper", null, "accepted for callers of runc; has no effect"),
        ],
        Run = call =>
        {
            FlagValues flags = call.Flags;
            flags.RefusePreservedDescriptors();
            flags.Refuse("process-label", GuestKernel.NoSelinux);
            flags.Refuse("apparmor", GuestKernel.NoAppArmor);
            return call.Runtime.Exec(new ExecRequest
            {
                Id = call.Id,
                ProcessFile = flags.Text("process"),
                Arguments = [.. call.Arguments.Skip(1)],
                Cwd = flags.Text("cwd"),
                Environment = flags.All("env"),
                User = flags.Text("user"),
                AdditionalGids = flags.All("additional-gids"),
                Capabilities = flags.All("cap"),
                Tty = flags.On("tty"),
                NoNewPrivileges = flags.Has("no-new-privs") ? flags.On("no-new-privs") : null,
                Detach = flags.On("detach"),
                PidFile = flags.Text("pid-file"),
                ConsoleSocket = flags.Text("console-socket"),
                PidfdSocket = flags.Text("pidfd-socket"),
                Cgroup = SubCgroup.Parse(flags.All("cgroup")),
                IgnorePaused = flags.On("ignore-paused"),
            });
        },
    };
}
