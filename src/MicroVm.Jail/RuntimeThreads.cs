using System.Runtime.CompilerServices;

namespace MicroVm.Jail;

/// <summary>
/// The threads that the .NET runtime makes before Main: one, which runs finalizers (the garbage collector has none of its own in this
/// configuration, and signals are taken by handlers). It is reached by a finalizer.
/// </summary>
public static class RuntimeThreads
{
    private const int Attempts = 3;
    private static volatile bool s_done;
    private static volatile Exception? s_failure;

    /// <summary>
    /// Waits until the thread has begun: what libc does at a thread's start (rseq, set_robust_list) is in no filter, and on a busy host the
    /// thread may not have had its turn yet.
    /// </summary>
    public static void WaitUntilBegun() => GC.WaitForPendingFinalizers();

    /// <summary>Leaves the thread what <see cref="ThreadKind.Runtime"/> needs, and no capability.</summary>
    /// <exception cref="Linux.LinuxException">The kernel refuses.</exception>
    /// <exception cref="InvalidOperationException">The thread does not run finalizers.</exception>
    public static void Narrow()
    {
        for (int i = 0; i < Attempts && !s_done; i++)
        {
            Drop();
            GC.Collect(0, GCCollectionMode.Forced, blocking: true);
            GC.WaitForPendingFinalizers();
        }

        if (s_failure is { } failure)
        {
            throw failure;
        }

        if (!s_done)
        {
            throw new InvalidOperationException("the runtime's thread for finalizers could not be reached: its system calls and capabilities cannot be taken away");
        }
    }

    // Not inlined: no register or stack slot of the caller holds the object then.
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void Drop() => _ = new Messenger();

    private sealed class Messenger
    {
        ~Messenger()
        {
            if (s_done)
            {
                return;
            }

            try
            {
                SystemCallFilter.Narrow(ThreadKind.Runtime);
            }
            catch (Linux.LinuxException e)
            {
                s_failure = e;
            }

            s_done = true;
        }
    }
}
