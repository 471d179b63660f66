using System.Globalization;
using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>How a process ended.</summary>
/// <param name="Status">Exit status, 0 to 255; 0 when a signal ended it.</param>
/// <param name="Signal">The signal that ended it, 0 when it exited.</param>
public readonly record struct ExitStatus(int Status, int Signal)
{
    private static readonly string[] SignalWords =
    [
        "", "hangup", "interrupt", "quit", "illegal instruction", "trace/breakpoint trap", "aborted", "bus error", "floating point exception", "killed",
        "user defined signal 1", "segmentation fault", "user defined signal 2", "broken pipe", "alarm clock", "terminated",
        "stack fault", "child exited", "continued", "stopped (signal)", "stopped", "stopped (tty input)", "stopped (tty output)", "urgent I/O condition",
        "CPU time limit exceeded", "file size limit exceeded", "virtual timer expired", "profiling timer expired", "window changed", "I/O possible",
        "power failure", "bad system call",
    ];

    /// <summary>How, in Go's words, which callers of runc know: "exit status 3", "signal: killed".</summary>
    public string Reason =>
        Signal == 0 ? string.Create(CultureInfo.InvariantCulture, $"exit status {Status}")
        : Signal < SignalWords.Length ? $"signal: {SignalWords[Signal]}"
        : string.Create(CultureInfo.InvariantCulture, $"signal: signal {Signal}");
}

/// <summary>
/// A child of this process, held by a pidfd. Disposing closes the pidfd only; a child that was not waited for stays a
/// zombie until this process ends. Any thread may call.
/// </summary>
public sealed unsafe class SpawnedProcess : IDisposable
{
    private static readonly TimeSpan KillPatience = TimeSpan.FromSeconds(10);
    private readonly Lock _lock = new();
    private ExitStatus? _exit;

    internal SpawnedProcess(int pid)
    {
        Pid = pid;
        Fd = PidFd.Open(pid);
    }

    /// <summary>Process id; valid until the child was waited for.</summary>
    public int Pid { get; }

    /// <summary>Pidfd: readable when the child has ended. Owned by this object.</summary>
    public SafeFd Fd { get; }

    /// <summary>Sends a signal; nothing happens when the child has ended.</summary>
    public void Signal(int signal) => _ = PidFd.Signal(Fd, signal);

    /// <summary>How the child ended; null while it runs.</summary>
    public ExitStatus? TryWait() => Wait(Libc.WNOHANG);

    /// <summary>Waits for the end, at most <paramref name="timeout"/>; null when the child still runs.</summary>
    public ExitStatus? Wait(TimeSpan timeout)
    {
        long deadline = Environment.TickCount64 + (long)timeout.TotalMilliseconds;
        while (true)
        {
            if (TryWait() is { } exit)
            {
                return exit;
            }

            long left = deadline - Environment.TickCount64;
            if (left <= 0)
            {
                return null;
            }

            Libc.pollfd pfd = new() { fd = Fd.Value, events = Libc.POLLIN };
            _ = Libc.poll(&pfd, 1, (int)Math.Min(left, int.MaxValue));
        }
    }

    /// <summary>
    /// Ends the child with SIGKILL and waits for it, at most ten seconds: a process that waits for a device or a server of files may
    /// take for ever.
    /// </summary>
    /// <returns>How it ended; null when it has not, though it will as soon as the kernel lets it.</returns>
    public ExitStatus? Kill() => Kill(KillPatience);

    /// <summary>The same, waiting at most <paramref name="patience"/>.</summary>
    public ExitStatus? Kill(TimeSpan patience)
    {
        Signal(Libc.SIGKILL);
        return Wait(patience);
    }

    /// <inheritdoc/>
    public void Dispose() => Fd.Dispose();

    private ExitStatus? Wait(int options)
    {
        lock (_lock)
        {
            if (_exit is not null)
            {
                return _exit;
            }

            int status, result;
            do
            {
                result = Libc.waitpid(Pid, &status, options);
            }
            while (Check.Retry(result));
            if (result == 0)
            {
                return null;
            }

            // ECHILD: this process was started with SIGCHLD ignored, so that the kernel keeps no status.
            return _exit = result < 0 ? new ExitStatus(255, 0)
                : (status & 0x7f) == 0 ? new ExitStatus((status >> 8) & 0xff, 0)
                : new ExitStatus(0, status & 0x7f);
        }
    }
}
