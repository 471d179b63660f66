using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>Processes by a descriptor that never means another one (pidfd_open(2)).</summary>
public static class PidFd
{
    /// <summary>Opens a process.</summary>
    /// <exception cref="LinuxException">ESRCH: there is none.</exception>
    public static SafeFd Open(int pid) => SafeFd.From(Libc.pidfd_open(pid, 0), "pidfd_open");

    /// <summary>Sends a signal.</summary>
    /// <returns>False, with errno set, when it was not sent: ESRCH when the process has ended.</returns>
    public static unsafe bool Signal(SafeFd process, int signal)
    {
        ArgumentNullException.ThrowIfNull(process);
        // No siginfo: the kernel fills it in as kill(2) does.
        return Libc.pidfd_send_signal(process.Value, signal, null, 0) == 0;
    }

    /// <summary>Waits until a process has ended, whoever its parent is.</summary>
    /// <param name="process">The process.</param>
    /// <param name="deadline">How long, by Environment.TickCount64.</param>
    /// <returns>False when it still runs.</returns>
    public static unsafe bool WaitForEnd(SafeFd process, long deadline)
    {
        ArgumentNullException.ThrowIfNull(process);
        Libc.pollfd pfd = new() { fd = process.Value, events = Libc.POLLIN };
        int result;
        do
        {
            // Safe: the kernel writes to the one pollfd, which lives on this frame.
            result = Libc.poll(&pfd, 1, (int)Math.Clamp(deadline - Environment.TickCount64, 0, int.MaxValue));
        }
        while (Check.Retry(result));
        return result > 0;
    }
}
