namespace MicroVm.Linux.Tracing;

/// <summary>A step of a start.</summary>
/// <param name="Name">What was done.</param>
/// <param name="Begin">When it began: nanoseconds of CLOCK_MONOTONIC.</param>
/// <param name="End">When it ended; the same as <paramref name="Begin"/> for a mark.</param>
/// <param name="Thread">The lane that it belongs to. Steps of one lane lie one after the other or one inside the other.</param>
public readonly record struct RecordedStep(string Name, long Begin, long End, int Thread);
