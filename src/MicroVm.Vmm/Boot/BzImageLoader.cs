using System.Buffers.Binary;
using MicroVm.Memory;

namespace MicroVm.Vmm.Boot;

/// <summary>
/// Loads a bzImage: its protected-mode part to 1 MiB, entered in long mode 0x200 behind that (Documentation/x86/boot.rst,
/// 1.14). The kernel unpacks itself, to its preferred address or above the place it was loaded to.
/// </summary>
public static class BzImageLoader
{
    private const ulong Entry64 = 0x200;
    private const int SectorSize = 512;
    private const int DefaultSetupSectors = 4;

    /// <summary>Whether the file carries the boot sector's signature and the setup header's magic.</summary>
    public static bool Recognises(BootFile file)
    {
        ArgumentNullException.ThrowIfNull(file);
        return file.Length >= SetupHeader.Version
            && file.Read<ushort>(SetupHeader.BootFlag, "the boot flag") == SetupHeader.BootFlagValue
            && file.Read<uint>(SetupHeader.Header, "the header magic") == SetupHeader.HeaderMagic;
    }

    /// <summary>Loads <paramref name="file"/> into zeroed guest RAM.</summary>
    /// <exception cref="BootException">The header breaks a rule of the boot protocol, or the kernel does not fit.</exception>
    public static KernelImage Load(BootFile file, GuestMemory memory)
    {
        ArgumentNullException.ThrowIfNull(file);
        ArgumentNullException.ThrowIfNull(memory);
        byte[] sector = new byte[SetupHeader.End];
        file.ReadExactly(0, sector, "the setup header");
        CheckHeader(file, sector);

        int setupSectors = sector[SetupHeader.SetupSects] == 0 ? DefaultSetupSectors : sector[SetupHeader.SetupSects];
        ulong offset = (ulong)(setupSectors + 1) * SectorSize;
        ulong declared = (ulong)U32(sector, SetupHeader.Syssize) * 16;
        if (offset >= file.Length)
        {
            throw new BootException(file.Name, $"the kernel is to start at {offset}, behind the end of the file of {file.Length} bytes; it is cut off");
        }

        // syssize is rounded up to 16 bytes; a signature may follow what it counts.
        ulong length = Math.Min(declared, file.Length - offset);
        if (length + 15 < declared || length <= Entry64)
        {
            throw new BootException(file.Name, $"the setup header announces {declared} bytes of kernel, the file holds {file.Length - offset}; it is cut off");
        }

        const ulong Start = BootLayout.HighMemory;
        ulong preferred = BinaryPrimitives.ReadUInt64LittleEndian(sector.AsSpan(SetupHeader.PrefAddress));
        ulong runsAt = Math.Max(Start, preferred);
        ulong end = runsAt + U32(sector, SetupHeader.InitSize);
        if (preferred >= BootLayout.IdentityMapped || !memory.Contains(Start, Math.Max(end, Start + length) - Start))
        {
            throw new BootException(
                file.Name, $"the kernel unpacks itself to {runsAt:x}..{end:x}, which the guest's {memory.Size >> 20} MiB of memory do not hold; give it more");
        }

        file.ReadInto(memory, Start, offset, length, "the kernel");
        int headerEnd = Math.Min(SetupHeader.Header + sector[SetupHeader.Jump + 1], SetupHeader.End);
        return new KernelImage
        {
            Protocol = BootProtocol.Linux64,
            Entry = Start + Entry64,
            Start = Start,
            End = Math.Max(end, Start + length),
            InitrdMax = U32(sector, SetupHeader.InitrdAddrMax),
            CommandLineMax = (int)Math.Min(U32(sector, SetupHeader.CmdlineSize), BootLayout.CommandLineRoom - 1),
            SetupHeader = sector[SetupHeader.SetupSects..headerEnd],
        };
    }

    private static void CheckHeader(BootFile file, byte[] sector)
    {
        ushort version = BinaryPrimitives.ReadUInt16LittleEndian(sector.AsSpan(SetupHeader.Version));
        ushort xloadflags = BinaryPrimitives.ReadUInt16LittleEndian(sector.AsSpan(SetupHeader.Xloadflags));
        string? rule =
            version < SetupHeader.MinimalVersion ? $"boot protocol {version >> 8}.{version & 0xff:d2} is older than 2.12, which 64-bit entry needs"
            : (sector[SetupHeader.Loadflags] & SetupHeader.LoadedHigh) == 0 ? "is a zImage, to be loaded low; use a bzImage"
            : (xloadflags & SetupHeader.XlfKernel64) == 0 ? "has no 64-bit entry point (XLF_KERNEL_64); use a 64-bit kernel"
            : SetupHeader.Header + sector[SetupHeader.Jump + 1] < SetupHeader.InitSize + 4 ? "the setup header ends before init_size"
            : null;
        if (rule is not null)
        {
            throw new BootException(file.Name, rule);
        }
    }

    private static uint U32(byte[] sector, int offset) => BinaryPrimitives.ReadUInt32LittleEndian(sector.AsSpan(offset));
}
