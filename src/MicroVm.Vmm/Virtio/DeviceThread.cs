using MicroVm.Linux;
using MicroVm.Vmm.Jail;

namespace MicroVm.Vmm.Virtio;

/// <summary>
/// A thread that serves queues of a device, with an event loop of its own: for devices whose requests block. Owns both.
/// </summary>
internal sealed class DeviceThread : IDisposable
{
    private const int StackBytes = 256 * 1024;
    private readonly ThreadKind _kind;
    private readonly IVirtioInterrupt _interrupt;
    private readonly Thread _thread;

    /// <summary>Makes the thread; it runs from <see cref="Start"/> on.</summary>
    /// <param name="name">Its name, also in logs.</param>
    /// <param name="kind">Which system calls it is left.</param>
    /// <param name="interrupt">The way to the driver, whose device needs a reset when the thread cannot go on.</param>
    internal DeviceThread(string name, ThreadKind kind, IVirtioInterrupt interrupt)
    {
        _kind = kind;
        _interrupt = interrupt;
        _thread = new Thread(Run, StackBytes) { IsBackground = true, Name = name };
    }

    /// <summary>The thread's name.</summary>
    internal string Name => _thread.Name!;

    /// <summary>The loop that the thread runs.</summary>
    internal EventLoop Loop { get; } = new();

    /// <summary>Starts the loop.</summary>
    internal void Start() => _thread.Start();

    /// <summary>Ends the loop after its current turn, and waits for that; what it served may then be disposed of.</summary>
    internal void Stop()
    {
        Loop.Stop();
        if (!_thread.ThreadState.HasFlag(ThreadState.Unstarted))
        {
            _thread.Join();
        }
    }

    /// <summary>Stops the thread when it runs still.</summary>
    public void Dispose()
    {
        Stop();
        Loop.Dispose();
    }

    private void Run()
    {
        try
        {
            JailedThread.Begin(_kind);
            Loop.Run();
        }
        catch (Exception e) when (e is IOException or InvalidOperationException)
        {
            // Queues that cannot be served any more end their device, not the machine.
            _interrupt.SignalNeedsReset($"{Name}: {e.Message}");
        }
    }
}
