using System.Runtime.ExceptionServices;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Oci.Config;

namespace MicroVm.Shim.Containers;

/// <summary>
/// The process's first thread, whose namespaces /proc/PID/ns shows as the process's: it goes into the container's network namespace,
/// where hooks find it, while all work is done by threads that stay in the host's.
/// </summary>
internal sealed class MainThread
{
    private readonly ThreadCalls _calls = new();

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

            main._calls.End();
        })
        { Name = "work" }.Start();
        main._calls.Serve();
        failure?.Throw();
        return result;
    }

    /// <summary>Path of the first thread's network namespace.</summary>
    internal static string NetworkPath => $"/proc/{Libc.getpid()}/ns/net";

    /// <summary>
    /// Moves the first thread into a container's network namespace: the one that it names, or a new one. Nothing happens for null, which is
    /// the host's network: that is refused by name.
    /// </summary>
    /// <exception cref="LinuxException">It cannot be made or entered.</exception>
    internal void EnterNetwork(Namespace? network)
    {
        if (network is not null)
        {
            _calls.Do(() => Enter(network.Path));
        }
    }

    private static void Enter(string? path)
    {
        if (string.IsNullOrEmpty(path))
        {
            Check.Result(Libc.unshare(Libc.CLONE_NEWNET), "unshare", "CLONE_NEWNET");
            return;
        }

        using SafeFd ns = SafeFd.From(Libc.open(path, Libc.O_RDONLY | Libc.O_CLOEXEC, 0), "open", path);
        Check.Result(Libc.setns(ns.Value, Libc.CLONE_NEWNET), "setns", path);
    }
}
