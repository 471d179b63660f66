using System.Runtime.ExceptionServices;

namespace MicroVm.Sandbox.StandIn;

/// <summary>
/// The process's first thread, whose namespaces /proc/PID/ns shows as the process's. All work is done by a second one, so that
/// the first can change namespaces of its own while the work goes on in the host's.
/// </summary>
internal sealed class FirstThread
{
    private readonly object _lock = new();
    private Action? _request;
    private ExceptionDispatchInfo? _failure;
    private bool _ended;

    /// <summary>Runs <paramref name="work"/> to its end; to be called by the first thread.</summary>
    internal static T Run<T>(Func<FirstThread, T> work)
    {
        FirstThread first = new();
        T? result = default;
        ExceptionDispatchInfo? failure = null;
        new Thread(() =>
        {
            try
            {
                result = work(first);
            }
            catch (Exception e)
            {
                failure = ExceptionDispatchInfo.Capture(e);
            }

            first.End();
        })
        { Name = "work" }.Start();
        first.Serve();
        failure?.Throw();
        return result!;
    }

    /// <summary>Has the first thread run <paramref name="action"/>, which must not start threads: they would share its namespaces.</summary>
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

    private void End()
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
                try
                {
                    _request?.Invoke();
                }
                catch (Exception e)
                {
                    _failure = ExceptionDispatchInfo.Capture(e);
                }

                _request = null;
                Monitor.PulseAll(_lock);
                Monitor.Wait(_lock);
            }
        }
    }
}
