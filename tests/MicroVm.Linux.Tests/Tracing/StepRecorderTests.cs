using MicroVm.Linux.Tracing;
using Xunit;

namespace MicroVm.Linux.Tests.Tracing;

public class StepRecorderTests
{
    [Fact]
    public void Steps_are_kept_with_their_threads_in_the_order_of_their_ends()
    {
        StepRecorder recorder = new(isOn: true);
        long before = StepRecorder.Now;
        using (recorder.Begin("outer"))
        {
            using (recorder.Begin("inner"))
            {
            }
        }

        recorder.Add("elsewhere", before, before, 77);
        Thread other = new(() => recorder.Add("other", before, StepRecorder.Now));
        other.Start();
        other.Join();
        IReadOnlyList<RecordedStep> steps = recorder.Steps;
        Assert.Equal(["inner", "outer", "elsewhere", "other"], steps.Select(s => s.Name));
        Assert.Equal([Environment.CurrentManagedThreadId, Environment.CurrentManagedThreadId, 77, other.ManagedThreadId], steps.Select(s => s.Thread));
        Assert.True(before <= steps[1].Begin && steps[1].Begin <= steps[0].Begin && steps[0].End <= steps[1].End && steps[1].End <= StepRecorder.Now);
    }

    [Fact]
    public void Steps_beyond_the_bound_are_dropped()
    {
        StepRecorder recorder = new(isOn: true);
        for (int i = 0; i < StepRecorder.MostSteps + 10; i++)
        {
            recorder.Add($"{i}", i, i);
        }

        Assert.Equal(StepRecorder.MostSteps, recorder.Steps.Count);
        Assert.Equal("0", recorder.Steps[0].Name);
    }

    [Fact]
    public void A_recorder_that_is_off_keeps_nothing()
    {
        using (StepRecorder.Off.Begin("step"))
        {
        }

        StepRecorder.Off.Add("step", 1, 2);
        Assert.Empty(StepRecorder.Off.Steps);
    }
}
