using MicroVm.Linux;

namespace MicroVm.Agent.Service;

/// <summary>Work that waits, on threads of its own, and work whose errors are not the caller's.</summary>
internal static class Background
{
    private const int StackBytes = 256 << 10;

    /// <summary>Runs managed code on a new thread. The thread may join a container's namespaces, so it is used once.</summary>
    internal static void Run(string name, Action body) =>
        new Thread(() => body(), StackBytes) { IsBackground = true, Name = name }.Start();

    /// <summary>Runs an action.</summary>
    /// <returns>What it threw; null when it returned.</returns>
    internal static Exception? Attempt(Action action)
    {
        try
        {
            action();
            return null;
        }
        catch (Exception e) when (e is not OutOfMemoryException)
        {
            return e;
        }
    }

    /// <summary>Runs an action; an error of the kernel is logged.</summary>
    internal static void TryOrWarn(Action action)
    {
        try
        {
            action();
        }
        catch (LinuxException e)
        {
            Boot.Log.Warn(e.Message);
        }
    }
}
