using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Sandbox.Pods;

/// <summary>The sandbox's end of the socket to a proxy (proxy.S); owned. The proxy ends when this is disposed, by SIGKILL if not told otherwise.</summary>
internal sealed unsafe class ProxyLink(SafeFd socket) : IDisposable
{
    private const byte Exit = 0, Signal = 1, TakeTerminal = 2;
    private const int StackSize = 256 << 10;
    private volatile bool _ended;

    /// <summary>Makes a terminal that of the proxy's session: changes of its size are then signalled to the proxy.</summary>
    /// <exception cref="LinuxException">The proxy is gone.</exception>
    internal void Control(SafeFd terminal) => FdSender.Send(socket, [TakeTerminal, 0], [terminal]);

    /// <summary>Hands signals that the proxy gets to <paramref name="deliver"/>, one at a time, on a thread of its own.</summary>
    /// <param name="deliver">Takes the number.</param>
    /// <param name="gone">Called on that thread when the proxy was ended by somebody else.</param>
    internal void Start(Action<int> deliver, Action gone) => new Thread(() => Run(deliver, gone), StackSize) { IsBackground = true, Name = "signals" }.Start();

    /// <summary>Has the proxy end as the container's init did.</summary>
    internal void End(ExitStatus exit)
    {
        _ended = true;
        byte* message = stackalloc byte[2];
        (message[0], message[1]) = exit.Signal != 0 ? (Signal, (byte)exit.Signal) : (Exit, (byte)exit.Status);
        _ = Libc.send(socket.Value, message, 2, Libc.MSG_NOSIGNAL);
    }

    public void Dispose()
    {
        _ended = true;

        // Wakes the thread, too; what was sent before arrives all the same.
        _ = Libc.shutdown(socket.Value, Libc.SHUT_RDWR);
    }

    private void Run(Action<int> deliver, Action gone)
    {
        int signal;
        int have = 0;
        while (true)
        {
            nint n = Libc.read(socket.Value, (byte*)&signal + have, (nuint)(sizeof(int) - have));
            if (Check.Retry(n))
            {
                continue;
            }

            if (n <= 0)
            {
                break;
            }

            have += (int)n;
            if (have == sizeof(int))
            {
                have = 0;
                if (!_ended)
                {
                    deliver(signal);
                }
            }
        }

        if (!_ended)
        {
            gone();
        }
    }
}
