using MicroVm.Linux;

namespace MicroVm.Shim.Containers;

/// <summary>
/// The thread that starts a VMM and lives as long: a VMM ends with the thread that started it (PR_SET_PDEATHSIG), and is in the cgroups
/// that the thread is in.
/// </summary>
internal sealed class OwnerThread : IDisposable
{
    private readonly ThreadCalls _calls = new();
    private readonly Thread _thread;

    /// <summary>Starts the thread.</summary>
    internal OwnerThread()
    {
        _thread = new Thread(_calls.Serve, 1 << 20) { IsBackground = true, Name = "vm owner" };
        _thread.Start();
    }

    /// <summary>Runs <paramref name="work"/> there and waits for it; what it throws is thrown here.</summary>
    internal void Do(Action work) => _calls.Do(work);

    /// <summary>Ends the thread, and with it a VMM that it started.</summary>
    public void Dispose()
    {
        _calls.End();
        _thread.Join();
    }
}
