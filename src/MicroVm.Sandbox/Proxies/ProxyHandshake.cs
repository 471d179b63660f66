using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Sandbox.Proxies;

/// <summary>
/// How the executable learns that a command started it as a container's process: the command has written a greeting to the socket that
/// both share. Neither the environment nor the arguments decide, since others choose those: the arguments are the container's.
/// </summary>
internal static unsafe class ProxyHandshake
{
    /// <summary>The request.</summary>
    internal const int RequestFd = 3;

    /// <summary>The socket to the command.</summary>
    internal const int CallerFd = 4;

    /// <summary>Bytes of the configuration.</summary>
    internal const int ConfigurationFd = 5;

    /// <summary>The sandbox's end of the socket to a container's proxy; for exec not there.</summary>
    internal const int ProxyFd = 6;

    /// <summary>The terminal of a command in the foreground, where it is none of the standard streams; else not there.</summary>
    internal const int TerminalFd = 7;

    // Its number changes with the form of requests and messages: an executable that was replaced in between is noticed.
    private static ReadOnlySpan<byte> Greeting => "microvm container process 3\n"u8;

    /// <summary>Greets the process that is about to be started.</summary>
    /// <param name="socket">The command's end.</param>
    /// <exception cref="LinuxException">The socket is broken.</exception>
    internal static void Offer(SafeFd socket) => HostFile.WriteAll(socket, Greeting, "the container's process");

    /// <summary>Takes the greeting off the socket, where there is one; nothing else is consumed.</summary>
    internal static bool Take()
    {
        Span<byte> seen = stackalloc byte[Greeting.Length];
        fixed (byte* p = seen)
        {
            return Libc.recv(CallerFd, p, (nuint)seen.Length, Libc.MSG_PEEK | Libc.MSG_DONTWAIT) == seen.Length
                && seen.SequenceEqual(Greeting)
                && Libc.recv(CallerFd, p, (nuint)seen.Length, Libc.MSG_DONTWAIT) == seen.Length;
        }
    }
}
