using System.Text;
using MicroVm.Sandbox.Proxies;
using Xunit;

namespace MicroVm.Sandbox.Tests;

public sealed class MountPointTests
{
    [Fact]
    public void MountsOfTheTreesAreReadWithTheirNames()
    {
        const string text = """
            100 99 0:50 / / rw,nosuid - tmpfs none rw
            101 100 8:1 /vol /0 rw master:5 - ext4 /dev/sda1 rw
            102 101 0:51 / /0/a\040b/c\134d rw master:6 - tmpfs none rw
            103 100 8:1 /vol /12 rw - ext4 /dev/sda1 rw
            104 103 0:52 / /12/m rw - tmpfs none rw
            105 100 0:53 / /other rw - tmpfs none rw
            broken
            x 1 0:1 / /0/y rw - tmpfs none rw
            """;
        Assert.Equal(
            [new(101, "/0", 0, ""), new(102, "/0/a b/c\\d", 0, "/a b/c\\d"), new(103, "/12", 12, ""), new(104, "/12/m", 12, "/m")],
            MountPoint.Parse(Encoding.UTF8.GetBytes(text)));
    }
}
