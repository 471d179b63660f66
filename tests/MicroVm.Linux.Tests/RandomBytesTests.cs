using Xunit;

namespace MicroVm.Linux.Tests;

/// <summary>Random bytes of the kernel.</summary>
public sealed class RandomBytesTests
{
    [Fact]
    public void TheyAreAsManyAsAskedForAndNeverTheSame()
    {
        Assert.Empty(RandomBytes.Get(0));
        byte[] first = RandomBytes.Get(1000), second = RandomBytes.Get(1000);
        Assert.Equal(1000, second.Length);
        Assert.NotEqual(first, second);
        Assert.True(first.Distinct().Count() > 200);
    }
}
