using MicroVm.Memory;
using MicroVm.Tests.Shared.Fuzz;
using MicroVm.Vmm.Boot;
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
        byte[] spoilt = Spoiling.Bytes(image, random, HeaderBytes);
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
}
