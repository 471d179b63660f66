using System.Buffers.Binary;
using MicroVm.Vmm.Boot;
using MicroVm.Vmm.Memory;
using MicroVm.Vmm.Tests.Boot;

namespace MicroVm.Vmm.Tests.Fuzz;

/// <summary>Kernels with spoilt headers: loaded, or refused with the file and the rule that it breaks.</summary>
public sealed class KernelFuzz
{
    private const int HeaderBytes = 0x300;

    [Fact]
    public void Elf() => Fuzz("elf", ElfBuilder.Kernel([0xf4], pvhEntry: (uint)ElfBuilder.LoadAddress));

    [Fact]
    public void BzImage() => Fuzz("bzimage", BzImageLoaderTests.Image([0xf4]));

    private static void Fuzz(string target, byte[] image) => Fuzzing.Run(target, random =>
    {
        byte[] spoilt = Spoil(image, random);
        using GuestMemory memory = GuestMemory.Create(32 << 20);
        using BootFile file = ElfBuilder.File(spoilt);
        try
        {
            KernelImage kernel = KernelLoader.Load(file, memory);
            Assert.True(kernel.End <= BootLayout.LowRamEnd(memory));
        }
        catch (BootException e)
        {
            Assert.StartsWith("kernel test: ", e.Message, StringComparison.Ordinal);
        }
    });

    private static byte[] Spoil(byte[] image, Random random)
    {
        byte[] spoilt = image[..(random.Next(4) == 0 ? random.Next(image.Length) : image.Length)];
        Span<byte> bytes = stackalloc byte[8];
        for (int n = random.Next(1, 5); n > 0; n--)
        {
            int at = random.Next(Math.Min(spoilt.Length, HeaderBytes) + 1);
            ulong value = random.Next(4) switch { 0 => ulong.MaxValue, 1 => 0, 2 => (ulong)random.Next(), _ => (ulong)random.NextInt64(long.MinValue, long.MaxValue) };
            BinaryPrimitives.WriteUInt64LittleEndian(bytes, value);
            int width = Math.Min(1 << random.Next(4), spoilt.Length - at);
            bytes[..width].CopyTo(spoilt.AsSpan(at));
        }

        return spoilt;
    }
}
