namespace MicroVm.Memory;

/// <summary>A contiguous piece of guest RAM: where the guest sees it and where this process has it mapped.</summary>
/// <param name="Gpa">First guest physical address; page-aligned.</param>
/// <param name="Length">Length in bytes; a multiple of the page size.</param>
/// <param name="Hva">First host virtual address.</param>
/// <param name="FileOffset">Offset of the piece in the backing file.</param>
public readonly record struct GuestRegion(ulong Gpa, ulong Length, nint Hva, ulong FileOffset)
{
    /// <summary>One past the last guest physical address.</summary>
    public ulong End => Gpa + Length;
}
