using System.Runtime.ExceptionServices;

namespace MicroVm.Shim.Containers;

/// <summary>
/// The thread that starts a VMM and lives as long: a VMM ends with the thread that started it (PR_SET_PDEATHSIG), and is in the cgroups
/// that the thread is in.
/// </summary>
internal sealed class OwnerThread : IDisposable
{
    private readonly object _lock = new();
    private readonly Thread _thread;
    private Action? _work;
    private ExceptionDispatchInfo? _failure;
    private bool _ending;

    /// <summary>Starts the thread.</summary>
    internal OwnerThread()
    {
        _thread = new Thread(Run, 1 << 20) { IsBackground = true, Name = "vm owner" };
        _thread.Start();
    }

    /// <summary>Runs <paramref name="work"/> there and waits for it; what it throws is thrown here.</summary>
    internal void Do(Action work)
    {
        lock (_lock)
        {
            (_work, _failure) = (work, null);
            Monitor.PulseAll(_lock);
            while (_work is not null)
            {
                Monitor.Wait(_lock);
            }

            _failure?.Throw();
        }
    }

    /// <summary>Ends the thread, and with it a VMM that it started.</summary>
    public void Dispose()
    {
        lock (_lock)
        {
            _ending = true;
            Monitor.PulseAll(_lock);
        }

        _thread.Join();
    }

    private void Run()
    {
        lock (_lock)
        {
            while (!_ending)
            {
                if (_work is { } work)
                {
                    try
                    {
                        work();
                    }
                    catch (Exception e)
                    {
                        _failure = ExceptionDispatchInfo.Capture(e);
                    }

                    _work = null;
                    Monitor.PulseAll(_lock);
                }
                else
                {
                    Monitor.Wait(_lock);
                }
            }
        }
    }
}
