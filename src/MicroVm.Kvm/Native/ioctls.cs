namespace MicroVm.Kvm.Native;

/// <summary>
/// Numbers of linux/kvm.h and asm/kvm.h in the headers' own spelling. Every one is compared with a compiled C program
/// by tests/MicroVm.Kvm.Tests, as are the structs beside this file.
/// </summary>
public static partial class KvmAbi
{
#pragma warning disable CS1591 // named and documented by linux/kvm.h
    // asm-generic/ioctl.h: direction in bits 30..31, the argument's size in 16..29, KVMIO (0xAE) in 8..15, number in 0..7.
    private const uint IO = 0xAE00;
    private const uint IOW = 0x4000_0000 | IO;
    private const uint IOR = 0x8000_0000 | IO;
    private const uint IOWR = 0xC000_0000 | IO;

    public const uint KVM_GET_API_VERSION = IO | 0x00;
    public const uint KVM_CREATE_VM = IO | 0x01;
    public const uint KVM_GET_MSR_INDEX_LIST = IOWR | (4 << 16) | 0x02;
    public const uint KVM_CHECK_EXTENSION = IO | 0x03;
    public const uint KVM_GET_VCPU_MMAP_SIZE = IO | 0x04;
    public const uint KVM_GET_SUPPORTED_CPUID = IOWR | (8 << 16) | 0x05;

    public const uint KVM_CREATE_VCPU = IO | 0x41;
    public const uint KVM_GET_DIRTY_LOG = IOW | (16 << 16) | 0x42;
    public const uint KVM_SET_USER_MEMORY_REGION = IOW | (32 << 16) | 0x46;
    public const uint KVM_SET_TSS_ADDR = IO | 0x47;
    public const uint KVM_SET_IDENTITY_MAP_ADDR = IOW | (8 << 16) | 0x48;
    public const uint KVM_CREATE_IRQCHIP = IO | 0x60;
    public const uint KVM_IRQ_LINE = IOW | (8 << 16) | 0x61;
    public const uint KVM_GET_IRQCHIP = IOWR | (520 << 16) | 0x62;
    public const uint KVM_SET_IRQCHIP = IOR | (520 << 16) | 0x63;
    public const uint KVM_SET_GSI_ROUTING = IOW | (8 << 16) | 0x6a;
    public const uint KVM_IRQFD = IOW | (32 << 16) | 0x76;
    public const uint KVM_CREATE_PIT2 = IOW | (64 << 16) | 0x77;
    public const uint KVM_IOEVENTFD = IOW | (64 << 16) | 0x79;
    public const uint KVM_SET_CLOCK = IOW | (48 << 16) | 0x7b;
    public const uint KVM_GET_CLOCK = IOR | (48 << 16) | 0x7c;
    public const uint KVM_SIGNAL_MSI = IOW | (32 << 16) | 0xa5;

    public const uint KVM_RUN = IO | 0x80;
    public const uint KVM_GET_REGS = IOR | (144 << 16) | 0x81;
    public const uint KVM_SET_REGS = IOW | (144 << 16) | 0x82;
    public const uint KVM_GET_SREGS = IOR | (312 << 16) | 0x83;
    public const uint KVM_SET_SREGS = IOW | (312 << 16) | 0x84;
    public const uint KVM_TRANSLATE = IOWR | (24 << 16) | 0x85;
    public const uint KVM_INTERRUPT = IOW | (4 << 16) | 0x86;
    public const uint KVM_GET_MSRS = IOWR | (8 << 16) | 0x88;
    public const uint KVM_SET_MSRS = IOW | (8 << 16) | 0x89;
    public const uint KVM_GET_FPU = IOR | (416 << 16) | 0x8c;
    public const uint KVM_SET_FPU = IOW | (416 << 16) | 0x8d;
    public const uint KVM_GET_LAPIC = IOR | (1024 << 16) | 0x8e;
    public const uint KVM_SET_LAPIC = IOW | (1024 << 16) | 0x8f;
    public const uint KVM_SET_CPUID2 = IOW | (8 << 16) | 0x90;
    public const uint KVM_GET_CPUID2 = IOWR | (8 << 16) | 0x91;
    public const uint KVM_GET_MP_STATE = IOR | (4 << 16) | 0x98;
    public const uint KVM_SET_MP_STATE = IOW | (4 << 16) | 0x99;
    public const uint KVM_NMI = IO | 0x9a;
    public const uint KVM_SET_GUEST_DEBUG = IOW | (72 << 16) | 0x9b;
    public const uint KVM_GET_VCPU_EVENTS = IOR | (64 << 16) | 0x9f;
    public const uint KVM_SET_VCPU_EVENTS = IOW | (64 << 16) | 0xa0;
    public const uint KVM_GET_DEBUGREGS = IOR | (128 << 16) | 0xa1;
    public const uint KVM_SET_DEBUGREGS = IOW | (128 << 16) | 0xa2;
    public const uint KVM_SET_TSC_KHZ = IO | 0xa2;
    public const uint KVM_GET_TSC_KHZ = IO | 0xa3;
    public const uint KVM_ENABLE_CAP = IOW | (104 << 16) | 0xa3;
    public const uint KVM_GET_XSAVE = IOR | (4096 << 16) | 0xa4;
    public const uint KVM_SET_XSAVE = IOW | (4096 << 16) | 0xa5;
    public const uint KVM_GET_XCRS = IOR | (392 << 16) | 0xa6;
    public const uint KVM_SET_XCRS = IOW | (392 << 16) | 0xa7;
    public const uint KVM_KVMCLOCK_CTRL = IO | 0xad;
    public const uint KVM_GET_XSAVE2 = IOR | (4096 << 16) | 0xcf;
#pragma warning restore CS1591
}
