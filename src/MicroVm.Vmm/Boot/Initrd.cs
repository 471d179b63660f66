using MicroVm.Memory;

namespace MicroVm.Vmm.Boot;

/// <summary>Where the initrd lies in guest RAM.</summary>
/// <param name="Gpa">First address, page-aligned.</param>
/// <param name="Length">Length in bytes; 0 when there is none.</param>
public readonly record struct Initrd(ulong Gpa, ulong Length)
{
    /// <summary>Loads <paramref name="file"/> as high in low RAM as the kernel allows, clear of the kernel.</summary>
    /// <exception cref="BootException">It is empty, or kernel and initrd together do not fit.</exception>
    public static Initrd Load(BootFile file, GuestMemory memory, KernelImage kernel)
    {
        ArgumentNullException.ThrowIfNull(file);
        ArgumentNullException.ThrowIfNull(memory);
        ArgumentNullException.ThrowIfNull(kernel);
        if (file.Length == 0)
        {
            throw new BootException(file.Name, "the initrd is empty");
        }

        ulong top = Math.Min(BootLayout.LowRamEnd(memory), kernel.InitrdMax + 1);
        ulong gpa = file.Length <= top ? (top - file.Length) & ~(ulong)(GuestMemory.PageSize - 1) : 0;
        if (gpa < kernel.End)
        {
            throw new BootException(
                file.Name, $"the initrd of {file.Length >> 10} KiB and the kernel, which ends at {kernel.End >> 10} KiB, do not fit below {top >> 10} KiB; give the guest more memory than {memory.Size >> 20} MiB");
        }

        file.ReadInto(memory, gpa, 0, file.Length, "the initrd");
        return new Initrd(gpa, file.Length);
    }
}
