using System.Runtime.ExceptionServices;

namespace MicroVm.Sandbox.Pods;

/// <summary>A thread that keeps the namespaces which it entered, while the process's other threads stay in the host's.</summary>
internal sealed class NamespaceThread : IDisposable
{
    private readonly object _lock = new();
    private Action? _request;
    private ExceptionDispatchInfo? _failure;
    private bool _ended;

    /// <summary>Starts the thread.</summary>
    internal NamespaceThread() => new Thread(Serve, 256 << 10) { IsBackground = true, Name = "namespaces" }.Start();

    /// <summary>Has the thread run <paramref name="action"/>, which must not start threads: they would share its namespaces. What it throws is thrown here.</summary>
    internal void Do(Action action)
    {
        lock (_lock)
        {
            _failure = null;
            _request = action;
            Monitor.PulseAll(_lock);
            while (_request is not null)
            {
                Monitor.Wait(_lock);
            }

            _failure?.Throw();
        }
    }

    public void Dispose()
    {
        lock (_lock)
        {
            _ended = true;
            Monitor.PulseAll(_lock);
        }
    }

    private void Serve()
    {
        lock (_lock)
        {
            while (!_ended)
            {
                if (_request is null)
                {
                    Monitor.Wait(_lock);
                    continue;
                }

                try
                {
                    _request();
                }
                catch (Exception e)
                {
                    _failure = ExceptionDispatchInfo.Capture(e);
                }

                _request = null;
                Monitor.PulseAll(_lock);
            }
        }
    }
}
