using MicroVm.Linux;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.Proxies;

namespace MicroVm.Sandbox.Tests.Runtime;

/// <summary>What an agent says of a process's end: repeated when a process can end so, refused else.</summary>
public sealed class ProcessEndTests
{
    [Theory]
    [InlineData(0, 0)]
    [InlineData(255, 0)]
    [InlineData(137, 9)]
    [InlineData(139, 11)]
    [InlineData(192, 64)]
    public void EndsAreRepeated(int status, uint signal) =>
        Assert.Equal(new ExitStatus(status, (int)signal), ProcessEnd.Of(new WaitProcessResponse { ExitStatus = status, Signal = signal }));

    [Theory]
    [InlineData(-1, 0)]
    [InlineData(256, 0)]
    [InlineData(int.MaxValue, 0)]
    [InlineData(int.MinValue, 9)]
    [InlineData(0, 19)]
    [InlineData(0, 17)]
    [InlineData(0, 18)]
    [InlineData(0, 65)]
    [InlineData(0, uint.MaxValue)]
    public void LiesAreNamed(int status, uint signal)
    {
        WaitProcessResponse end = new() { ExitStatus = status, Signal = signal };
        Assert.Contains($"exit status {status}, signal {signal}", Assert.Throws<SandboxException>(() => ProcessEnd.Of(end)).Message, StringComparison.Ordinal);
    }
}
