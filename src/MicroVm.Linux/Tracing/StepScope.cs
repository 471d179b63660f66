namespace MicroVm.Linux.Tracing;

/// <summary>A step that is under way on this thread; it ends when this is disposed.</summary>
public readonly ref struct StepScope
{
    private readonly StepRecorder? _recorder;
    private readonly string _name;
    private readonly long _begin;

    internal StepScope(StepRecorder? recorder, string name)
    {
        _recorder = recorder;
        _name = name;
        _begin = recorder is null ? 0 : StepRecorder.Now;
    }

    /// <summary>Records the step.</summary>
    public void Dispose() => _recorder?.Add(_name, _begin, StepRecorder.Now);
}
