using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Sandbox.Pods;

/// <summary>
/// The descriptors of a <see cref="JoinRequest"/>, in order: standard streams, the sandbox's end of the proxy's socket, and memory files with
/// the document, the configuration and the agent's plan; then those of the exports and of the sockets, and the caller's terminal where none of its streams is one. They are sent once the sandbox has
/// answered that it waits for them.
/// </summary>
internal static unsafe class JoinFiles
{
    internal const int Input = 0, Output = 1, Error = 2, Proxy = 3, Document = 4, Configuration = 5, Plan = 6, First = 7;

    /// <summary>More mounts than any bundle has.</summary>
    internal const int Most = 1 << 14;

    // What one message may hold (FdSender).
    private const int Batch = 16;
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);

    /// <summary>Sends them.</summary>
    /// <exception cref="LinuxException">The sandbox is gone.</exception>
    internal static void Send(SafeFd socket, IReadOnlyList<SafeFd> files)
    {
        for (int at = 0; at < files.Count; at += Batch)
        {
            FdSender.Send(socket, "+"u8, [.. files.Skip(at).Take(Batch)]);
        }
    }

    /// <summary>Receives them.</summary>
    /// <param name="socket">The command's connection.</param>
    /// <param name="count">How many there will be.</param>
    /// <param name="files">Gets them; owned by the caller, also after a failure.</param>
    /// <exception cref="SandboxException">They do not come.</exception>
    internal static void Receive(SafeFd socket, int count, List<SafeFd> files)
    {
        if (count is < First or > Most)
        {
            throw new SandboxException($"a container cannot join with {count} descriptors");
        }

        long deadline = Environment.TickCount64 + (long)Patience.TotalMilliseconds;
        while (files.Count < count)
        {
            // A batch for each byte, so that none is cut.
            byte one = 0;
            int n = FdReceiver.Receive(socket, new Span<byte>(ref one), files, out Errno errno);
            if (n == 0 || (n < 0 && errno != Errno.EAGAIN) || Environment.TickCount64 > deadline)
            {
                throw new SandboxException("the command that creates the container is gone");
            }

            if (n < 0)
            {
                Libc.pollfd pfd = new() { fd = socket.Value, events = Libc.POLLIN };
                _ = Libc.poll(&pfd, 1, (int)Math.Max(0, deadline - Environment.TickCount64));
            }
        }
    }
}
