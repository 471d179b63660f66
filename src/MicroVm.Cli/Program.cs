using MicroVm.Sandbox.HostCgroups;
using MicroVm.Sandbox.Proxies;

namespace MicroVm.Cli;

/// <summary>The executable <c>microvm</c>.</summary>
public static class Program
{
    /// <summary>Runs a command; the exit status is the container's, or 1 for a failure of the runtime's own.</summary>
    public static int Main(string[] args) => args switch
    {
        _ when ProxyMain.IsAsked => ProxyMain.Run(),
        [OutOfMemoryVictim.Verb, .. var rest] => OutOfMemoryVictim.Run(rest),
        _ => CommandLine.Run(args),
    };
}
