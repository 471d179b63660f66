using System.Diagnostics;
using MicroVm.Linux.Native;

namespace MicroVm.Vmm.Startup;

/// <summary>
/// Measures the start of the process: the wall clock from the entry of Main on, plus the processor time that exec, loader
/// and runtime had used by then (which is wall time too, as that part runs on one thread and waits for nothing).
/// </summary>
public sealed unsafe class StartClock
{
    private readonly long _entry = Stopwatch.GetTimestamp();
    private readonly long _cpuMicroseconds;

    /// <summary>To be made first thing in Main.</summary>
    public StartClock()
    {
        Libc.timespec used;
        _cpuMicroseconds = Libc.clock_gettime(Libc.CLOCK_PROCESS_CPUTIME_ID, &used) == 0
            ? (used.tv_sec * 1_000_000) + (used.tv_nsec / 1000)
            : 0;
    }

    /// <summary>When the process started: nanoseconds of CLOCK_MONOTONIC.</summary>
    public long Began => _entry - (_cpuMicroseconds * 1000);

    /// <summary>When Main was entered: the same.</summary>
    public long Entered => _entry;

    /// <summary>Microseconds from the start of the process to <paramref name="timestamp"/> of <see cref="Stopwatch"/>; 0 for 0.</summary>
    public long MicrosecondsTo(long timestamp) =>
        timestamp == 0 ? 0 : _cpuMicroseconds + (long)Stopwatch.GetElapsedTime(_entry, timestamp).TotalMicroseconds;
}
