using MicroVm.Linux;
using MicroVm.Oci;
using MicroVm.Sandbox;
using MicroVm.Shim.Bootstrap;
using MicroVm.Ttrpc;

namespace MicroVm.Shim;

/// <summary>The executable <c>containerd-shim-microvm-v2</c>: containerd's <c>io.containerd.microvm.v2</c>.</summary>
public static class Program
{
    /// <summary>Carries out one action; without one, serves containerd. 1 is a failure, which standard error tells.</summary>
    public static int Main(string[] args)
    {
        try
        {
            ShimArguments arguments = ShimArguments.Parse(args);
            return arguments.Action switch
            {
                ShimAction.Version => VersionCommand.Run(),
                ShimAction.Info => InfoCommand.Run(),
                ShimAction.Start => StartCommand.Run(arguments),
                ShimAction.Delete => DeleteCommand.Run(arguments),
                _ => ServerProcess.Run(arguments),
            };
        }
        catch (Exception e)
        {
            // containerd shows what a start wrote; a stack is of use for faults of our own only.
            bool expected = e is SandboxException or SpecException or LinuxException or TtrpcException;
            StandardOutput.WriteError($"containerd-shim-microvm-v2: {(expected ? e.Message : e.ToString())}\n");
            return 1;
        }
    }
}
