using System.Text;
using MicroVm.Cli.Parsing;
using MicroVm.Linux;
using MicroVm.Oci;

namespace MicroVm.Cli.Commands;

/// <summary><c>microvm spec</c>: writes a default config.json.</summary>
internal static class SpecCommand
{
    internal static Command Command => new()
    {
        Name = "spec",
        Help = "create a new specification file",
        MaxArguments = 0,
        Flags =
        [
            new("bundle, b", "DIR", "path to the root of the bundle directory (default: the working folder)"),
            new("rootless", null, "refused: microvm runs as root"),
        ],
        Run = call =>
        {
            if (call.Flags.On("rootless"))
            {
                throw SpecException.Unsupported("--rootless", "micro-VMs are started by root");
            }

            string bundle = call.Flags.Text("bundle") ?? ".", path = Path.Combine(bundle, SpecReader.FileName);
            if (!Directory.Exists(bundle))
            {
                throw new SpecException($"chdir {bundle}: no such file or directory");
            }

            if (Path.Exists(path))
            {
                throw new SpecException($"File {SpecReader.FileName} exists. Remove it first");
            }

            HostFile.Replace(path, Encoding.UTF8.GetBytes(DefaultSpec.For(File.Exists("/sys/fs/cgroup/cgroup.controllers"))), 0b110_110_110);
            return 0;
        },
    };
}
