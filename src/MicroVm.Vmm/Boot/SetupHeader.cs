namespace MicroVm.Vmm.Boot;

/// <summary>
/// Offsets in a bzImage's setup header and in boot_params, which holds a copy at the same offsets (asm/bootparam.h;
/// Documentation/x86/boot.rst; Documentation/x86/zero-page.rst).
/// </summary>
public static class SetupHeader
{
#pragma warning disable CS1591 // named as in asm/bootparam.h
    public const int AcpiRsdpAddr = 0x070;
    public const int ExtRamdiskImage = 0x0c0;
    public const int ExtRamdiskSize = 0x0c4;
    public const int ExtCmdLinePtr = 0x0c8;
    public const int E820Entries = 0x1e8;
    public const int SetupSects = 0x1f1;
    public const int Syssize = 0x1f4;
    public const int BootFlag = 0x1fe;
    public const int Jump = 0x200;
    public const int Header = 0x202;
    public const int Version = 0x206;
    public const int TypeOfLoader = 0x210;
    public const int Loadflags = 0x211;
    public const int RamdiskImage = 0x218;
    public const int RamdiskSize = 0x21c;
    public const int CmdLinePtr = 0x228;
    public const int InitrdAddrMax = 0x22c;
    public const int KernelAlignment = 0x230;
    public const int RelocatableKernel = 0x234;
    public const int Xloadflags = 0x236;
    public const int CmdlineSize = 0x238;
    public const int PrefAddress = 0x258;
    public const int InitSize = 0x260;
    public const int E820Table = 0x2d0;
#pragma warning restore CS1591

    /// <summary>One past the room for the setup header in boot_params.</summary>
    public const int End = 0x290;

    /// <summary>boot_flag: the boot sector's signature.</summary>
    public const ushort BootFlagValue = 0xaa55;

    /// <summary>header: "HdrS".</summary>
    public const uint HeaderMagic = 0x5372_6448;

    /// <summary>Boot protocol 2.12, the first with xloadflags, and so with a declared 64-bit entry.</summary>
    public const ushort MinimalVersion = 0x020c;

    /// <summary>loadflags bit LOADED_HIGH.</summary>
    public const byte LoadedHigh = 1;

    /// <summary>xloadflags bit XLF_KERNEL_64: there is a 64-bit entry 0x200 behind the load address.</summary>
    public const ushort XlfKernel64 = 1;

    /// <summary>type_of_loader: a boot loader without an assigned number.</summary>
    public const byte UndefinedLoader = 0xff;
}
