using System.Runtime.InteropServices;
using MicroVm.Linux.Native;

namespace MicroVm.Sandbox.Streams;

/// <summary>
/// Takes the signals that are meant for the container. Until there is a container, one that would have ended this process
/// ends the attempt; then all are handed on, in order. SIGCHLD, SIGPIPE, SIGURG and the runtime's own are not taken, nor
/// are the stops of job control: those stop this process, as any other.
/// </summary>
internal sealed class SignalRelay : IDisposable
{
    private const int FirstRealTime = 34, LastRealTime = 64;

    private static readonly int[] NotTaken =
    [
        Libc.SIGKILL, Libc.SIGSTOP, Libc.SIGCHLD, Libc.SIGPIPE, Libc.SIGURG, Libc.SIGTSTP, Libc.SIGTTIN, Libc.SIGTTOU,
        Libc.SIGSEGV, Libc.SIGBUS, Libc.SIGFPE, Libc.SIGILL, Libc.SIGTRAP, Libc.SIGABRT,

        // The first is what .NET stops threads with for garbage collection.
        FirstRealTime,
    ];

    private readonly Lock _lock = new();
    private readonly Queue<int> _queue = [];
    private readonly SemaphoreSlim _queued = new(0);
    private readonly List<PosixSignalRegistration> _registrations = [];
    private readonly Action _abort;
    private Action<int>? _deliver;
    private bool _disposed;

    /// <summary>Takes signals from now on. <paramref name="abort"/> is called when one comes before <see cref="Start"/>.</summary>
    internal SignalRelay(Action abort)
    {
        _abort = abort;
        for (int signal = 1; signal <= LastRealTime; signal++)
        {
            if (!NotTaken.Contains(signal) && signal is not (32 or 33))
            {
                _registrations.Add(PosixSignalRegistration.Create(Managed(signal), Take));
            }
        }
    }

    /// <summary>The signal that ended the attempt to start; 0 when none did.</summary>
    internal int AbortedBy { get; private set; }

    /// <summary>Hands signals to <paramref name="deliver"/>, one at a time, on a thread of its own.</summary>
    internal void Start(Action<int> deliver)
    {
        lock (_lock)
        {
            _deliver = deliver;
        }

        new Thread(Run, 256 << 10) { IsBackground = true, Name = "signals" }.Start();
    }

    public void Dispose()
    {
        lock (_lock)
        {
            _disposed = true;
        }

        _queued.Release();
        _registrations.ForEach(r => r.Dispose());
    }

    private static PosixSignal Managed(int signal) => signal switch
    {
        Libc.SIGHUP => PosixSignal.SIGHUP,
        Libc.SIGINT => PosixSignal.SIGINT,
        Libc.SIGQUIT => PosixSignal.SIGQUIT,
        Libc.SIGTERM => PosixSignal.SIGTERM,
        Libc.SIGCONT => PosixSignal.SIGCONT,
        Libc.SIGWINCH => PosixSignal.SIGWINCH,
        _ => (PosixSignal)signal,
    };

    private static int Native(PosixSignal signal) => signal switch
    {
        PosixSignal.SIGHUP => Libc.SIGHUP,
        PosixSignal.SIGINT => Libc.SIGINT,
        PosixSignal.SIGQUIT => Libc.SIGQUIT,
        PosixSignal.SIGTERM => Libc.SIGTERM,
        PosixSignal.SIGCONT => Libc.SIGCONT,
        PosixSignal.SIGWINCH => Libc.SIGWINCH,
        _ => (int)signal,
    };

    private void Take(PosixSignalContext context)
    {
        context.Cancel = true;
        int signal = Native(context.Signal);
        lock (_lock)
        {
            if (_disposed)
            {
                return;
            }

            if (_deliver is null)
            {
                // These do nothing by default.
                if (signal is Libc.SIGWINCH or Libc.SIGCONT || AbortedBy != 0)
                {
                    return;
                }

                AbortedBy = signal;
            }
            else
            {
                _queue.Enqueue(signal);
                _queued.Release();
                return;
            }
        }

        _abort();
    }

    private void Run()
    {
        while (true)
        {
            _queued.Wait();
            int signal;
            lock (_lock)
            {
                if (_disposed)
                {
                    return;
                }

                signal = _queue.Dequeue();
            }

            _deliver!(signal);
        }
    }
}
