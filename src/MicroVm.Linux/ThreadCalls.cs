using System.Runtime.ExceptionServices;

namespace MicroVm.Linux;

/// <summary>
/// Calls that one certain thread makes for others: for what belongs to a thread, such as its namespaces, or a child that ends with it.
/// </summary>
public sealed class ThreadCalls
{
    private readonly object _lock = new();
    private Action? _call;
    private ExceptionDispatchInfo? _failure;
    private bool _ended;

    /// <summary>
    /// Has the serving thread run <paramref name="call"/>, and waits for it; what it throws is thrown here. One caller at a time. A call
    /// that starts a thread gives it the serving thread's namespaces.
    /// </summary>
    public void Do(Action call)
    {
        lock (_lock)
        {
            (_call, _failure) = (call, null);
            Monitor.PulseAll(_lock);
            while (_call is not null)
            {
                Monitor.Wait(_lock);
            }

            _failure?.Throw();
        }
    }

    /// <summary>Lets <see cref="Serve"/> return.</summary>
    public void End()
    {
        lock (_lock)
        {
            _ended = true;
            Monitor.PulseAll(_lock);
        }
    }

    /// <summary>Makes the calls, on the calling thread, until <see cref="End"/>.</summary>
    public void Serve()
    {
        lock (_lock)
        {
            while (!_ended)
            {
                if (_call is null)
                {
                    Monitor.Wait(_lock);
                    continue;
                }

                try
                {
                    _call();
                }
                catch (Exception e)
                {
                    _failure = ExceptionDispatchInfo.Capture(e);
                }

                _call = null;
                Monitor.PulseAll(_lock);
            }
        }
    }
}
