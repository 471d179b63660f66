using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Sandbox.Runtime;
using MicroVm.Sandbox.Vm;
using MicroVm.Ttrpc;
using Xunit;

namespace MicroVm.Sandbox.Tests;

public sealed class SignalRefusalTests
{
    [Theory]
    [InlineData(StatusCode.NotFound)]
    [InlineData(StatusCode.Unavailable)]
    [InlineData(StatusCode.DataLoss)]
    public void AGuestThatIsGoneHasNoProcess(StatusCode code) =>
        Assert.Equal(RuntimeTexts.NotRunning, SignalRefusal.Of(new TtrpcException(code, "ttrpc: the server closed the connection")).Message);

    [Fact]
    public void AConnectionThatCannotBeMadeHasNoProcess()
    {
        Exception[] failures = [new ObjectDisposedException("agent"), new LinuxException(Errno.ECONNREFUSED, "connect", "vsock")];
        Assert.All(failures, f => Assert.True(SignalRefusal.Knows(f)));
        Assert.All(failures, f => Assert.Equal(RuntimeTexts.NotRunning, SignalRefusal.Of(f).Message));
    }

    [Theory]
    [InlineData(StatusCode.InvalidArgument)]
    [InlineData(StatusCode.DeadlineExceeded)]
    public void AnotherRefusalIsPassedOn(StatusCode code) =>
        Assert.Equal("signal 99 is not known", SignalRefusal.Of(new TtrpcException(code, "signal 99 is not known")).Message);
}
