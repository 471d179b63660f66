using System.Runtime.ExceptionServices;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Shim.Containers;

/// <summary>
/// The process's first thread, whose namespaces /proc/PID/ns shows as the process's: it goes into the container's network namespace,
/// where hooks find it, while all work is done by threads that stay in the host's.
/// </summary>
internal sealed class MainThread
{
    private readonly object _lock = new();
    private Action? _request;
    private ExceptionDispatchInfo? _failure;
    private bool _ended;

    /// <summary>Runs <paramref name="work"/> on a second thread to its end; to be called by the first.</summary>
    internal static int Run(Func<MainThread, int> work)
    {
        MainThread main = new();
        int result = 0;
        ExceptionDispatchInfo? failure = null;
        new Thread(() =>
        {
            try
            {
                result = work(main);
            }
            catch (Exception e)
            {
                failure = ExceptionDispatchInfo.Capture(e);
            }

            main.End();
        })
        { Name = "work" }.Start();
        main.Serve();
        failure?.Throw();
        return result;
    }

    /// <summary>Path of the first thread's network namespace.</summary>
    internal static string NetworkPath => $"/proc/{Libc.getpid()}/ns/net";

    /// <summary>Moves the first thread into a network namespace: the one at <paramref name="path"/>, or a new one when that is empty.</summary>
    /// <exception cref="LinuxException">It cannot be made or entered.</exception>
    internal void EnterNetwork(string? path) => Do(() =>
    {
        if (string.IsNullOrEmpty(path))
        {
            Check.Result(Libc.unshare(Libc.CLONE_NEWNET), "unshare", "CLONE_NEWNET");
            return;
        }

        using SafeFd ns = SafeFd.From(Libc.open(path, Libc.O_RDONLY | Libc.O_CLOEXEC, 0), "open", path);
        Check.Result(Libc.setns(ns.Value, Libc.CLONE_NEWNET), "setns", path);
    });

    private void Do(Action action)
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
                catch (LinuxException e)
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
