using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;

namespace MicroVm.Sandbox.Proxies;

/// <summary>How a process in the guest ended, by what the agent says.</summary>
internal static class ProcessEnd
{
    private const int LargestStatus = 255, LastSignal = 64;

    /// <summary>The end as a proxy process repeats it.</summary>
    /// <exception cref="SandboxException">No process ends so: a proxy process that repeated a stop, say, would never end.</exception>
    internal static ExitStatus Of(WaitProcessResponse end) =>
        end.ExitStatus is >= 0 and <= LargestStatus && (end.Signal == 0 || Ends(end.Signal))
            ? new ExitStatus(end.ExitStatus, (int)end.Signal)
            : throw new SandboxException($"the agent tells of an end that no process has: exit status {end.ExitStatus}, signal {end.Signal}");

    private static bool Ends(uint signal) => signal <= LastSignal && (int)signal is not (
        Libc.SIGSTOP or Libc.SIGTSTP or Libc.SIGTTIN or Libc.SIGTTOU or Libc.SIGCONT or Libc.SIGCHLD or Libc.SIGWINCH);
}
