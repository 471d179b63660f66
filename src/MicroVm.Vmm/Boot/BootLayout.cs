using MicroVm.Memory;

namespace MicroVm.Vmm.Boot;

/// <summary>Where the VMM puts things into the guest's first mebibyte before the kernel runs. Guest physical addresses.</summary>
public static class BootLayout
{
    /// <summary>The GDT that the vCPU starts with: five entries.</summary>
    public const ulong Gdt = 0x500;

    /// <summary>hvm_start_info of a PVH kernel, with its module list and memory map behind it.</summary>
    public const ulong PvhStartInfo = 0x6000;

    /// <summary>boot_params ("zero page") of the Linux boot protocol.</summary>
    public const ulong ZeroPage = 0x7000;

    /// <summary>Top of the first stack; the 64-bit boot protocol does not ask for one.</summary>
    public const ulong StackTop = 0x8ff0;

    /// <summary>Page map level 4, followed by one page directory pointer table and one page directory.</summary>
    public const ulong PageTables = 0x9000;

    /// <summary>How much of memory the page tables identity-map: the kernel must be entered below this.</summary>
    public const ulong IdentityMapped = 1ul << 30;

    /// <summary>The kernel's command line, ended by a zero byte.</summary>
    public const ulong CommandLine = 0x20000;

    /// <summary>Room for the command line with its zero byte, in bytes.</summary>
    public const int CommandLineRoom = 0x10000;

    /// <summary>MP floating pointer: the last KiB of base memory, the second place where kernels look (MP 1.4, 4).</summary>
    public const ulong MpFloatingPointer = 0x9fc00;

    /// <summary>End of usable base memory.</summary>
    public const ulong LowMemoryEnd = MpFloatingPointer;

    /// <summary>End of base memory, and of the reserved KiB before it.</summary>
    public const ulong BaseMemoryEnd = 0xa0000;

    /// <summary>The ACPI tables, RSDP first (ACPI 6.4, 5.2.5.1: within E0000h-FFFFFh).</summary>
    public const ulong AcpiTables = 0xe0000;

    /// <summary>End of the room for the ACPI tables.</summary>
    public const ulong AcpiTablesEnd = MpConfigTable;

    /// <summary>The MP configuration table.</summary>
    public const ulong MpConfigTable = 0xf0000;

    /// <summary>Where a PC's processor starts in real mode, and kernels jump to reset through the BIOS.</summary>
    public const ulong ResetVector = 0xf_fff0;

    /// <summary>Start of extended memory; kernels are loaded from here on.</summary>
    public const ulong HighMemory = 0x10_0000;

    /// <summary>First GPA of the virtio-mmio windows, 4 KiB each.</summary>
    public const ulong VirtioMmio = 0xd000_0000;

    /// <summary>First interrupt line of the virtio-mmio devices.</summary>
    public const uint FirstVirtioGsi = 5;

    /// <summary>How many virtio-mmio devices there can be: one for each of the I/O APIC's pins 5 to 23.</summary>
    public const int MaxVirtioDevices = 19;

    /// <summary>GPA of the I/O APIC.</summary>
    public const uint IoApic = 0xfec0_0000;

    /// <summary>GPA of the local APICs.</summary>
    public const uint LocalApic = 0xfee0_0000;

    /// <summary>Three pages that KVM uses on processors without unrestricted guests (KVM_SET_TSS_ADDR); the page before them is its identity map.</summary>
    public const ulong KvmTss = 0xfffb_d000;

    /// <summary>End of the RAM below the gap: where a kernel and its initrd must fit.</summary>
    public static ulong LowRamEnd(GuestMemory memory)
    {
        ArgumentNullException.ThrowIfNull(memory);
        return memory.Regions[0].End;
    }
}
