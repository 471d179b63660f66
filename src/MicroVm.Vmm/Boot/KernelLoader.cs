using MicroVm.Memory;

namespace MicroVm.Vmm.Boot;

/// <summary>Loads a kernel of either kind, told apart by its first bytes.</summary>
public static class KernelLoader
{
    /// <summary>Loads <paramref name="file"/> into guest RAM, which must be as the host made it: all zero.</summary>
    /// <exception cref="BootException">It is neither an ELF vmlinux nor a bzImage, is malformed, or does not fit.</exception>
    public static KernelImage Load(BootFile file, GuestMemory memory)
    {
        ArgumentNullException.ThrowIfNull(file);
        ArgumentNullException.ThrowIfNull(memory);
        if (file.Length < 4)
        {
            throw new BootException(file.Name, $"has only {file.Length} bytes; it is not a kernel");
        }

        uint magic = file.Read<uint>(0, "the first bytes");
        if (magic == ElfFormat.Magic)
        {
            return ElfLoader.Load(file, memory);
        }

        if (BzImageLoader.Recognises(file))
        {
            return BzImageLoader.Load(file, memory);
        }

        throw new BootException(file.Name, "is neither an ELF vmlinux nor a bzImage; use an uncompressed vmlinux or arch/x86/boot/bzImage");
    }
}
