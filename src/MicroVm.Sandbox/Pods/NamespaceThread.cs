using MicroVm.Linux;

namespace MicroVm.Sandbox.Pods;

/// <summary>A thread that keeps the namespaces which it entered, while the process's other threads stay in the host's.</summary>
internal sealed class NamespaceThread : IDisposable
{
    private readonly ThreadCalls _calls = new();

    /// <summary>Starts the thread.</summary>
    internal NamespaceThread() => new Thread(_calls.Serve, 256 << 10) { IsBackground = true, Name = "namespaces" }.Start();

    /// <summary>Has the thread run <paramref name="action"/>, which must not start threads: they would share its namespaces. What it throws is thrown here.</summary>
    internal void Do(Action action) => _calls.Do(action);

    public void Dispose() => _calls.End();
}
