using MicroVm.Agent.Boot;
using Xunit;

namespace MicroVm.Agent.Tests;

public class KernelMessageTests
{
    [Theory]
    [InlineData("6,339,5140900,-;NET: Registered protocol family 10\n", "NET: Registered protocol family 10", 5_140_900_000)]
    [InlineData("30,340,5690716,-,caller=T1;udevd[80]: starting; version 181\n SUBSYSTEM=acpi\n", "udevd[80]: starting; version 181", 5_690_716_000)]
    [InlineData("6,1,0,-;", "", 0)]
    public void Records_have_a_text_and_a_time(string record, string text, long time) => Assert.Equal(new KernelMessage(text, time), KernelMessage.Parse(record));

    [Theory]
    [InlineData("")]
    [InlineData("6,339,5140900,-")]
    [InlineData("6,339;text")]
    [InlineData("6,339,-5,-;text")]
    [InlineData("6,339,9223372036854775807,-;text")]
    public void Malformed_records_are_none(string record) => Assert.Null(KernelMessage.Parse(record));
}
