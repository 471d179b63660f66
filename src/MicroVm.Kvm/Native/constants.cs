namespace MicroVm.Kvm.Native;

public static partial class KvmAbi
{
#pragma warning disable CS1591 // named and documented by linux/kvm.h and asm/kvm.h
    public const int KVM_API_VERSION = 12;

    public const uint KVM_EXIT_UNKNOWN = 0;
    public const uint KVM_EXIT_EXCEPTION = 1;
    public const uint KVM_EXIT_IO = 2;
    public const uint KVM_EXIT_HYPERCALL = 3;
    public const uint KVM_EXIT_DEBUG = 4;
    public const uint KVM_EXIT_HLT = 5;
    public const uint KVM_EXIT_MMIO = 6;
    public const uint KVM_EXIT_IRQ_WINDOW_OPEN = 7;
    public const uint KVM_EXIT_SHUTDOWN = 8;
    public const uint KVM_EXIT_FAIL_ENTRY = 9;
    public const uint KVM_EXIT_INTR = 10;
    public const uint KVM_EXIT_SET_TPR = 11;
    public const uint KVM_EXIT_TPR_ACCESS = 12;
    public const uint KVM_EXIT_NMI = 16;
    public const uint KVM_EXIT_INTERNAL_ERROR = 17;
    public const uint KVM_EXIT_SYSTEM_EVENT = 24;
    public const uint KVM_EXIT_IOAPIC_EOI = 26;
    public const uint KVM_EXIT_X86_RDMSR = 29;
    public const uint KVM_EXIT_X86_WRMSR = 30;
    public const uint KVM_EXIT_X86_BUS_LOCK = 33;
    public const uint KVM_EXIT_NOTIFY = 37;

    public const byte KVM_EXIT_IO_IN = 0;
    public const byte KVM_EXIT_IO_OUT = 1;

    public const uint KVM_INTERNAL_ERROR_EMULATION = 1;
    public const uint KVM_INTERNAL_ERROR_SIMUL_EX = 2;
    public const uint KVM_INTERNAL_ERROR_DELIVERY_EV = 3;
    public const uint KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON = 4;
    public const ulong KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES = 1;

    public const uint KVM_SYSTEM_EVENT_SHUTDOWN = 1;
    public const uint KVM_SYSTEM_EVENT_RESET = 2;
    public const uint KVM_SYSTEM_EVENT_CRASH = 3;

    public const uint KVM_CAP_IRQCHIP = 0;
    public const uint KVM_CAP_USER_MEMORY = 3;
    public const uint KVM_CAP_SET_TSS_ADDR = 4;
    public const uint KVM_CAP_EXT_CPUID = 7;
    public const uint KVM_CAP_NR_VCPUS = 9;
    public const uint KVM_CAP_NR_MEMSLOTS = 10;
    public const uint KVM_CAP_MP_STATE = 14;
    public const uint KVM_CAP_SET_GUEST_DEBUG = 23;
    public const uint KVM_CAP_IRQ_ROUTING = 25;
    public const uint KVM_CAP_IRQFD = 32;
    public const uint KVM_CAP_PIT2 = 33;
    public const uint KVM_CAP_IOEVENTFD = 36;
    public const uint KVM_CAP_SET_IDENTITY_MAP_ADDR = 37;
    public const uint KVM_CAP_ADJUST_CLOCK = 39;
    public const uint KVM_CAP_INTERNAL_ERROR_DATA = 40;
    public const uint KVM_CAP_VCPU_EVENTS = 41;
    public const uint KVM_CAP_DEBUGREGS = 50;
    public const uint KVM_CAP_XSAVE = 55;
    public const uint KVM_CAP_XCRS = 56;
    public const uint KVM_CAP_TSC_CONTROL = 60;
    public const uint KVM_CAP_GET_TSC_KHZ = 61;
    public const uint KVM_CAP_MAX_VCPUS = 66;
    public const uint KVM_CAP_TSC_DEADLINE_TIMER = 72;
    public const uint KVM_CAP_SYNC_REGS = 74;
    public const uint KVM_CAP_KVMCLOCK_CTRL = 76;
    public const uint KVM_CAP_SIGNAL_MSI = 77;
    public const uint KVM_CAP_READONLY_MEM = 81;
    public const uint KVM_CAP_IRQFD_RESAMPLE = 82;
    public const uint KVM_CAP_IOEVENTFD_NO_LENGTH = 100;
    public const uint KVM_CAP_SPLIT_IRQCHIP = 121;
    public const uint KVM_CAP_IOEVENTFD_ANY_LENGTH = 122;
    public const uint KVM_CAP_X2APIC_API = 129;
    public const uint KVM_CAP_IMMEDIATE_EXIT = 136;
    public const uint KVM_CAP_X86_DISABLE_EXITS = 143;
    public const uint KVM_CAP_EXCEPTION_PAYLOAD = 164;
    public const uint KVM_CAP_EXIT_ON_EMULATION_FAILURE = 204;
    public const uint KVM_CAP_XSAVE2 = 208;

    public const uint KVM_MEM_LOG_DIRTY_PAGES = 1;
    public const uint KVM_MEM_READONLY = 2;

    public const uint KVM_IRQFD_FLAG_DEASSIGN = 1;
    public const uint KVM_IRQFD_FLAG_RESAMPLE = 2;

    public const uint KVM_IOEVENTFD_FLAG_DATAMATCH = 1;
    public const uint KVM_IOEVENTFD_FLAG_PIO = 2;
    public const uint KVM_IOEVENTFD_FLAG_DEASSIGN = 4;

    public const uint KVM_IRQ_ROUTING_IRQCHIP = 1;
    public const uint KVM_IRQ_ROUTING_MSI = 2;
    public const uint KVM_IRQCHIP_PIC_MASTER = 0;
    public const uint KVM_IRQCHIP_PIC_SLAVE = 1;
    public const uint KVM_IRQCHIP_IOAPIC = 2;
    public const int KVM_IOAPIC_NUM_PINS = 24;

    public const uint KVM_MP_STATE_RUNNABLE = 0;
    public const uint KVM_MP_STATE_UNINITIALIZED = 1;
    public const uint KVM_MP_STATE_INIT_RECEIVED = 2;
    public const uint KVM_MP_STATE_HALTED = 3;
    public const uint KVM_MP_STATE_SIPI_RECEIVED = 4;

    public const uint KVM_CPUID_FLAG_SIGNIFCANT_INDEX = 1;

    public const uint KVM_CLOCK_TSC_STABLE = 2;
    public const uint KVM_CLOCK_REALTIME = 4;
    public const uint KVM_CLOCK_HOST_TSC = 8;

    public const uint KVM_VCPUEVENT_VALID_NMI_PENDING = 1;
    public const uint KVM_VCPUEVENT_VALID_SIPI_VECTOR = 2;
    public const uint KVM_VCPUEVENT_VALID_SHADOW = 4;
    public const uint KVM_VCPUEVENT_VALID_SMM = 8;
    public const uint KVM_VCPUEVENT_VALID_PAYLOAD = 16;

    public const byte KVM_X86_SHADOW_INT_MOV_SS = 1;
    public const byte KVM_X86_SHADOW_INT_STI = 2;

    public const ulong KVM_SYNC_X86_REGS = 1;
    public const ulong KVM_SYNC_X86_SREGS = 2;
    public const ulong KVM_SYNC_X86_EVENTS = 4;

    public const uint KVM_GUESTDBG_ENABLE = 1;
    public const uint KVM_GUESTDBG_SINGLESTEP = 2;
    public const uint KVM_GUESTDBG_USE_SW_BP = 0x10000;
    public const uint KVM_GUESTDBG_USE_HW_BP = 0x20000;

    public const int KVM_MAX_XCRS = 16;

    public const byte DE_VECTOR = 0;
    public const byte DB_VECTOR = 1;
    public const byte BP_VECTOR = 3;
    public const byte OF_VECTOR = 4;
    public const byte BR_VECTOR = 5;
    public const byte UD_VECTOR = 6;
    public const byte NM_VECTOR = 7;
    public const byte DF_VECTOR = 8;
    public const byte TS_VECTOR = 10;
    public const byte NP_VECTOR = 11;
    public const byte SS_VECTOR = 12;
    public const byte GP_VECTOR = 13;
    public const byte PF_VECTOR = 14;
    public const byte MF_VECTOR = 16;
    public const byte AC_VECTOR = 17;
    public const byte XM_VECTOR = 19;
#pragma warning restore CS1591
}
