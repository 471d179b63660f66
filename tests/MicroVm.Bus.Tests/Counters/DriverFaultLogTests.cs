using MicroVm.Bus.Counters;

namespace MicroVm.Bus.Tests.Counters;

public sealed class DriverFaultLogTests
{
    private readonly List<string> _lines = [];
    private readonly DriverFaultLog _log;

    public DriverFaultLogTests() => _log = new DriverFaultLog("fs0", _lines.Add);

    [Fact]
    public void A_rule_is_told_once_and_counted_at_the_end()
    {
        for (int i = 0; i < 100_000; i++)
        {
            _log.Add("a ring in a loop");
        }

        _log.Add("a wild address");
        Assert.Equal(2, _lines.Count);
        Assert.EndsWith("a ring in a loop", _lines[0], StringComparison.Ordinal);
        Assert.StartsWith("fs0: ", _lines[1], StringComparison.Ordinal);
        _log.End();
        _log.End();
        Assert.Equal("fs0: the guest's driver broke rules 99999 more times", Assert.Single(_lines[2..]));
    }

    [Fact]
    public void Rules_that_name_ever_other_numbers_are_told_no_more_often()
    {
        for (int i = 0; i < 1000; i++)
        {
            _log.Add($"a descriptor at {i}");
        }

        _log.End();
        Assert.Equal(DriverFaultLog.MaxLines + 1, _lines.Count);
        Assert.Contains($"{1000 - DriverFaultLog.MaxLines} more times", _lines[^1], StringComparison.Ordinal);
    }

    [Fact]
    public void A_driver_that_keeps_the_rules_is_not_mentioned()
    {
        _log.End();
        Assert.Empty(_lines);
    }
}
