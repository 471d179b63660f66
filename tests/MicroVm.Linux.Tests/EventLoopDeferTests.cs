using Xunit;

namespace MicroVm.Linux.Tests;

public sealed class EventLoopDeferTests
{
    [Fact]
    public void Deferred_work_runs_after_the_events_and_what_it_defers_in_the_next_turn()
    {
        using EventLoop loop = new();
        using EventFd a = new();
        using EventFd b = new();
        List<string> order = [];
        Work work = new(order, loop, again: 2);
        Ready ready = new(order, loop, work);
        loop.Add(a.Fd, Native.Libc.EPOLLIN, ready);
        loop.Add(b.Fd, Native.Libc.EPOLLIN, ready);
        a.Signal();
        b.Signal();
        Assert.Equal(2, loop.RunOnce(-1));
        Assert.Equal(["event", "event", "work"], order);

        // No waiting while work is left.
        loop.Remove(a.Fd);
        loop.Remove(b.Fd);
        Assert.Equal(0, loop.RunOnce(-1));
        Assert.Equal(0, loop.RunOnce(-1));
        Assert.Equal(["event", "event", "work", "work", "work"], order);
    }

    [Fact]
    public void Timer_wakes_the_loop_and_is_drained()
    {
        using EventLoop loop = new();
        using TimerFd timer = new();
        List<string> order = [];
        Ready ready = new(order, loop, null);
        loop.Add(timer.Fd, Native.Libc.EPOLLIN, ready);
        timer.Set(1);
        Assert.Equal(1, loop.RunOnce(-1));
        timer.Drain();
        Assert.Equal(0, loop.RunOnce(0));
        timer.Set(100_000);
        timer.Set(0);
        Assert.Equal(0, loop.RunOnce(0));
    }

    private sealed class Ready(List<string> order, EventLoop loop, Work? work) : IEventHandler
    {
        private bool _deferred;

        public void OnReady(SafeFd fd, uint events)
        {
            order.Add("event");
            if (work is not null && !_deferred)
            {
                _deferred = true;
                loop.Defer(work);
            }
        }
    }

    private sealed class Work(List<string> order, EventLoop loop, int again) : IDeferredWork
    {
        private int _again = again;

        public void RunDeferred()
        {
            order.Add("work");
            if (_again-- > 0)
            {
                loop.Defer(this);
            }
        }
    }
}
