using MicroVm.Linux;
using MicroVm.Linux.Netlink;

namespace MicroVm.Sandbox.Network;

/// <summary>An event loop on a thread of its own in a network namespace, for one owner.</summary>
internal sealed class NamespaceLoop : IDisposable
{
    private const int StackSize = 256 << 10;
    private readonly Lock _ending = new();
    private bool _ended;

    /// <summary>The loop: descriptors are added before <see cref="Start"/>, or on its thread.</summary>
    internal EventLoop Loop { get; } = new();

    /// <summary>Starts the thread.</summary>
    /// <param name="network">The namespace.</param>
    /// <param name="name">The thread's name.</param>
    /// <param name="ended">Called on the thread at its end, before the loop is disposed: lets go of what the owner has in it.</param>
    internal void Start(NetworkNamespace network, string name, Action ended) =>
        new Thread(() => Run(network, ended), StackSize) { IsBackground = true, Name = name }.Start();

    /// <summary>Ends it; the thread is not waited for.</summary>
    public void Dispose()
    {
        lock (_ending)
        {
            if (!_ended)
            {
                Loop.Stop();
            }
        }
    }

    private void Run(NetworkNamespace network, Action ended)
    {
        try
        {
            network.Enter();
            Loop.Run();
        }
        catch (Exception e) when (e is LinuxException or ObjectDisposedException)
        {
            // The namespace is gone.
        }

        lock (_ending)
        {
            _ended = true;
            ended();
            Loop.Dispose();
        }
    }
}
