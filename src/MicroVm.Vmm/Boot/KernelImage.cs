namespace MicroVm.Vmm.Boot;

/// <summary>How a kernel is entered.</summary>
public enum BootProtocol
{
    /// <summary>The 64-bit Linux boot protocol: long mode, RSI points to boot_params (Documentation/x86/boot.rst, 1.14).</summary>
    Linux64,

    /// <summary>PVH: 32-bit protected mode without paging, EBX points to hvm_start_info (Xen, docs/misc/pvh.pandoc).</summary>
    Pvh,
}

/// <summary>A kernel that has been loaded into guest RAM.</summary>
public sealed record KernelImage
{
    /// <summary>How to enter it.</summary>
    public required BootProtocol Protocol { get; init; }

    /// <summary>GPA of its first instruction.</summary>
    public required ulong Entry { get; init; }

    /// <summary>First GPA that it occupies.</summary>
    public required ulong Start { get; init; }

    /// <summary>One past the last GPA that it occupies, with its zeroed data and the room to unpack itself.</summary>
    public required ulong End { get; init; }

    /// <summary>Highest address that any byte of the initrd may have.</summary>
    public ulong InitrdMax { get; init; } = 0x7fff_ffff;

    /// <summary>Longest command line in bytes, without its zero byte (COMMAND_LINE_SIZE - 1 on x86).</summary>
    public int CommandLineMax { get; init; } = 2047;

    /// <summary>The setup header of a bzImage, from offset 0x1f1 on; null for an ELF kernel.</summary>
    public byte[]? SetupHeader { get; init; }
}
