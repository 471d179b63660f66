using System.Text;
using MicroVm.Cli.Parsing;
using MicroVm.Linux;
using MicroVm.Sandbox;

namespace MicroVm.Cli.Install;

/// <summary><c>microvm install</c>: writes the configuration by which an engine has this runtime under the name <c>microvm</c>.</summary>
internal static class InstallCommand
{
    private const uint FileMode = 0b110_100_100, FolderMode = 0b111_101_101;

    internal static Command Command => new()
    {
        Name = "install",
        Help = "set a container engine of this host up to use microvm: containerd, crio, docker or podman",
        Arguments = "ENGINE",
        MinArguments = 1,
        MaxArguments = 1,
        Flags =
        [
            new("print", null, "print the file that would be written, and write nothing"),
            new("remove", null, "take what was written away again"),
            new("runtime", "FILE", "path of microvm for the engine (default: this executable)"),
            new("host", "DIR", "where the root of the host is, for an installer in a container (default: /)"),
        ],
        Run = call => Run(call.Arguments[0], call.Flags),
    };

    private static EngineSetup[] Setups =>
    [
        new ContainerdSetup { Engine = "containerd", File = "/etc/containerd/config.toml", Then = "systemctl restart containerd" },
        new DropInSetup
        {
            Engine = "crio",
            File = "/etc/crio/crio.conf.d/50-microvm.conf",
            Then = "systemctl restart crio",
            Lines = static program => $"""
                [crio.runtime.runtimes.microvm]
                runtime_path = "{program}"
                runtime_type = "oci"
                runtime_root = "/run/microvm"

                """,
        },
        new DockerSetup { Engine = "docker", File = "/etc/docker/daemon.json", Then = "systemctl reload docker; docker run --runtime microvm IMAGE" },
        new DropInSetup
        {
            Engine = "podman",
            File = "/etc/containers/containers.conf.d/microvm.conf",
            Then = "podman --runtime microvm run IMAGE",
            Lines = static program => $"""
                [engine.runtimes]
                microvm = ["{program}"]

                """,
        },
    ];

    /// <summary>The setup of an engine.</summary>
    /// <exception cref="SandboxException">It is not known.</exception>
    internal static EngineSetup SetupOf(string engine) => Array.Find(Setups, s => s.Engine == engine)
        ?? throw new SandboxException($"engine \"{engine}\" is not known: containerd, crio, docker or podman");

    private static int Run(string engine, FlagValues flags)
    {
        EngineSetup setup = SetupOf(engine);
        string host = flags.Text("host") ?? "/";
        string program = flags.Text("runtime") ?? Environment.ProcessPath!;
        if (!Path.IsPathFullyQualified(program) || program.AsSpan().ContainsAny('"', '\\') || program.Any(char.IsControl))
        {
            throw new SandboxException($"--runtime {program}: an absolute path is needed, without quotes and backslashes");
        }

        string path = Resolve(host + setup.File);
        string? before = File.Exists(path) ? File.ReadAllText(path) : null;
        string? after = !flags.On("remove") ? setup.With(before, program) : before is null ? null : setup.Without(before);
        if (flags.On("print"))
        {
            Output.Write(after ?? "");
            return 0;
        }

        if (!flags.On("remove") && !File.Exists(host + program))
        {
            throw new SandboxException($"{program}: there is no such file{(host == "/" ? "" : $" below {host}")}");
        }

        Output.Write(Write(path, before, after) + (after == before ? "" : flags.On("remove") ? "" : $"then: {setup.Then}\n"));
        return 0;
    }

    // A link to a file that is kept elsewhere stays one.
    private static string Resolve(string path) =>
        new FileInfo(path) is { LinkTarget: not null } link ? link.ResolveLinkTarget(returnFinalTarget: true)!.FullName : path;

    private static string Write(string path, string? before, string? after)
    {
        if (after == before)
        {
            return $"{path}: nothing to do\n";
        }

        if (after is null)
        {
            File.Delete(path);
            return $"{path}: removed\n";
        }

        HostFile.MakeFolder(Path.GetDirectoryName(path)!, FolderMode);
        HostFile.Replace(path, Encoding.UTF8.GetBytes(after), before is null ? FileMode : (uint)File.GetUnixFileMode(path));
        return $"{path}: written\n";
    }
}
