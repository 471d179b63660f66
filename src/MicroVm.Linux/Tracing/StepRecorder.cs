using System.Diagnostics;

namespace MicroVm.Linux.Tracing;

/// <summary>Keeps the first <see cref="MostSteps"/> steps of a process, with their times. Any thread. One that is off keeps nothing and costs nothing.</summary>
/// <param name="isOn">Whether steps are kept.</param>
public sealed class StepRecorder(bool isOn)
{
    /// <summary>How many steps are kept; a start has some forty in each process.</summary>
    public const int MostSteps = 256;

    private readonly Lock _lock = new();
    private readonly List<RecordedStep> _steps = [];

    /// <summary>One that keeps nothing.</summary>
    public static StepRecorder Off { get; } = new(isOn: false);

    /// <summary>CLOCK_MONOTONIC in nanoseconds, which is what <see cref="Stopwatch"/> counts on Linux.</summary>
    public static long Now => Stopwatch.GetTimestamp();

    /// <summary>Whether steps are kept.</summary>
    public bool IsOn => isOn;

    /// <summary>The steps so far, in the order of their ends.</summary>
    public IReadOnlyList<RecordedStep> Steps
    {
        get
        {
            lock (_lock)
            {
                return [.. _steps];
            }
        }
    }

    /// <summary>Begins a step of this thread, which ends when the scope is disposed.</summary>
    public StepScope Begin(string name) => new(isOn ? this : null, name);

    /// <summary>Records a step of this thread.</summary>
    /// <param name="name">What was done.</param>
    /// <param name="begin">As <see cref="Now"/> was.</param>
    /// <param name="end">The same, not before <paramref name="begin"/>.</param>
    public void Add(string name, long begin, long end) => Add(name, begin, end, Environment.CurrentManagedThreadId);

    /// <summary>Records a step of another lane than this thread's.</summary>
    /// <param name="name">What was done.</param>
    /// <param name="begin">As <see cref="Now"/> was.</param>
    /// <param name="end">The same, not before <paramref name="begin"/>.</param>
    /// <param name="thread">The lane: no thread's number.</param>
    public void Add(string name, long begin, long end, int thread)
    {
        if (!isOn)
        {
            return;
        }

        lock (_lock)
        {
            if (_steps.Count < MostSteps)
            {
                _steps.Add(new RecordedStep(name, begin, end, thread));
            }
        }
    }
}
