using MicroVm.Sandbox.Runtime;

namespace MicroVm.Sandbox.Tests.Runtime;

/// <summary>Signals as `kill` takes them.</summary>
public sealed class SignalNameTests
{
    [Theory]
    [InlineData("TERM", 15)]
    [InlineData("SIGKILL", 9)]
    [InlineData("sigusr1", 10)]
    [InlineData("9", 9)]
    [InlineData("0", 0)]
    [InlineData("64", 64)]
    [InlineData("SYS", 31)]
    [InlineData("IOT", 6)]
    [InlineData("RTMIN", 34)]
    [InlineData("RTMIN+3", 37)]
    [InlineData("SIGRTMAX-1", 63)]
    public void NamesAndNumbers(string text, int number) => Assert.Equal(number, SignalNames.Parse(text));

    [Theory]
    [InlineData("WHAT")]
    [InlineData("")]
    [InlineData("SIG")]
    [InlineData("65")]
    [InlineData("-1")]
    [InlineData("RTMIN+31")]
    [InlineData("RTMAX+1")]
    [InlineData("RTMINX")]
    public void OthersAreRefused(string text) => Assert.Throws<SandboxException>(() => SignalNames.Parse(text));

    [Fact]
    public void RuncsWords() => Assert.Equal("unknown signal \"WHAT\"", Assert.Throws<SandboxException>(() => SignalNames.Parse("WHAT")).Message);
}
