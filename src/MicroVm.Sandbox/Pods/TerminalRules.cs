using MicroVm.Sandbox.Proxies;
using MicroVm.Sandbox.Streams;

namespace MicroVm.Sandbox.Pods;

/// <summary>Whether a container's terminal fits what its creation was asked for, by runc's rules and in its words.</summary>
internal static class TerminalRules
{
    /// <summary>Checks; in a process that has the caller's standard streams.</summary>
    /// <exception cref="SandboxException">It does not fit.</exception>
    internal static void Check(ProxyRequest request, bool terminal)
    {
        if (request.Foreground)
        {
            if (terminal && !request.HasTerminalFd && CallerTerminal.OfStreams() is null)
            {
                throw CallerTerminal.Missing;
            }
        }
        else if (terminal && request.ConsoleSocket is null)
        {
            throw new SandboxException("cannot allocate tty if runc will detach without setting console socket");
        }

        if (request.ConsoleSocket is not null && (!terminal || request.Foreground))
        {
            throw new SandboxException("cannot use console socket if runc will not detach or allocate tty");
        }
    }
}
