using System.Security.Cryptography;
using System.Text;
using Xunit;

namespace MicroVm.Linux.Tests;

/// <summary>SHA-256 beside the library's own.</summary>
public sealed class Sha256Tests
{
    [Fact]
    public void TheStandardsExamples()
    {
        // FIPS 180-4, examples of NIST.
        Assert.Equal("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", Convert.ToHexStringLower(Sha256.HashData("abc"u8)));
        Assert.Equal("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", Convert.ToHexStringLower(Sha256.HashData([])));
    }

    [Fact]
    public void EveryLengthAroundABlocksEnd()
    {
        byte[] data = Encoding.ASCII.GetBytes(string.Concat(Enumerable.Range(0, 100).Select(i => $"{i}, ")));
        for (int length = 0; length <= 200; length++)
        {
            Assert.Equal(SHA256.HashData(data.AsSpan(0, length)), Sha256.HashData(data.AsSpan(0, length)));
        }
    }
}
