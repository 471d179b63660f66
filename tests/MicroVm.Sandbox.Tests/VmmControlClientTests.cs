using System.Text;
using MicroVm.Linux;
using MicroVm.Sandbox.Vm;
using MicroVm.VmmControl;
using Xunit;

namespace MicroVm.Sandbox.Tests;

/// <summary>A VMM that its guest has taken over may answer anything on its control socket.</summary>
public sealed class VmmControlClientTests
{
    [Theory]
    [InlineData("null\n", "does not answer")]
    [InlineData("7\n", "does not answer")]
    [InlineData("\n", "does not answer")]
    [InlineData("{\"info\":\n", "does not answer")]
    [InlineData("{\"info\":{\"state\":7}}\n", "does not answer")]
    [InlineData("{\"error\":\"no\"}\n", "no")]
    [InlineData("{}\n", "counters")]
    [InlineData("{\"info\":null}\n", "counters")]
    [InlineData("{", "timed out")]
    [InlineData("", "timed out")]
    public void LiesAreErrors(string answer, string told)
    {
        (SafeFd ours, SafeFd theirs) = UnixSocket.Pair();
        using SafeFd vmm = theirs;
        using VmmControlClient client = new(ours, TimeSpan.FromMilliseconds(100));
        HostFile.WriteAll(vmm, Encoding.UTF8.GetBytes(answer), "answer");
        SandboxException e = Assert.Throws<SandboxException>(() => client.ReadCounters());
        Assert.Contains(told, e.Message, StringComparison.OrdinalIgnoreCase);
    }

    [Fact]
    public void AnAnswerWithoutEndIsCutOff()
    {
        (SafeFd ours, SafeFd theirs) = UnixSocket.Pair();
        using VmmControlClient client = new(ours, TimeSpan.FromSeconds(60));
        Thread flood = new(() => _ = Pipe.TryWrite(theirs, new byte[4 << 20]));
        flood.Start();
        Assert.Contains("does not answer", Assert.Throws<SandboxException>(() => client.ReadCounters()).Message, StringComparison.Ordinal);
        client.Dispose();
        flood.Join();
        theirs.Dispose();
    }

    [Fact]
    public void AVmmThatIsGoneIsAnError()
    {
        (SafeFd ours, SafeFd theirs) = UnixSocket.Pair();
        using VmmControlClient client = new(ours, TimeSpan.FromSeconds(60));
        theirs.Dispose();
        Assert.Throws<SandboxException>(() => client.Request(new ControlRequest { Operation = ControlOperation.Info }));
    }
}
