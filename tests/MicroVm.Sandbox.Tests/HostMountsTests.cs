using System.Text;
using MicroVm.Sandbox.Plan;
using Xunit;

namespace MicroVm.Sandbox.Tests;

/// <summary>Mounts below a directory, by lines as /proc/self/mountinfo has them.</summary>
public sealed class HostMountsTests
{
    private const string MountInfo = """
        21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
        30 21 0:26 / /srv/data/inner rw - tmpfs none rw
        31 21 0:27 / /srv/with\040space/a\134b rw - tmpfs none rw
        32 21
        """;

    [Theory]
    [InlineData("/", true)]
    [InlineData("/srv", true)]
    [InlineData("/srv/data", true)]
    [InlineData("/srv/data/", true)]
    [InlineData("/srv/dat", false)]
    [InlineData("/srv/data/inner", false)]
    [InlineData("/srv/with space", true)]
    [InlineData("/srv/with space/a\\b", false)]
    [InlineData("/var", false)]
    public void AMountBelowIsFound(string path, bool found) =>
        Assert.Equal(found, new HostMounts(Encoding.UTF8.GetBytes(MountInfo.ReplaceLineEndings("\n"))).AnyBelow(path));
}
