using System.Runtime.ExceptionServices;

namespace MicroVm.Linux;

/// <summary>A thread for what changes its thread for good: the namespaces of one that ends with the work are nobody's afterwards.</summary>
public static class OwnThread
{
    /// <summary>Does something on a thread of its own, and waits for it; what it throws is thrown here.</summary>
    public static T Run<T>(Func<T> action)
    {
        T result = default!;
        ExceptionDispatchInfo? failure = null;
        Thread thread = new(() =>
        {
            try
            {
                result = action();
            }
            catch (Exception e) when (e is not OutOfMemoryException)
            {
                failure = ExceptionDispatchInfo.Capture(e);
            }
        });
        thread.Start();
        thread.Join();
        failure?.Throw();
        return result;
    }
}
