using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.Proxies;
using Xunit;

namespace MicroVm.Sandbox.Tests;

public sealed class MissingDevicesTests
{
    private static readonly Device[] Devices = [.. Enumerable.Range(0, 20).Select(i => new Device { Path = $"/dev/d{i}", Type = i == 1 ? 'b' : 'c', Major = 8, Minor = (uint)i })];

    [Fact]
    public void DevicesAreNamedWithTheirNumbers() => Assert.Equal(
        "devices of the host that the VM does not have are left out: /dev/d1 (block 8:1), /dev/d3 (character 8:3)",
        MissingDevices.Describe(Devices, [1, 3, 3, 20, uint.MaxValue]));

    [Fact]
    public void OfManyTheFirstAreNamed() =>
        Assert.EndsWith("/dev/d7 (character 8:7) and 12 more", MissingDevices.Describe(Devices, Enumerable.Range(0, 20).Select(i => (uint)i)), StringComparison.Ordinal);

    [Fact]
    public void NoneIsNoWarning() => Assert.Null(MissingDevices.Describe(Devices, [99]));
}
