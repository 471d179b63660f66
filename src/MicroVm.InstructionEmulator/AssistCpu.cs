using System.Runtime.InteropServices;
using Iced.Intel;
using MicroVm.Kvm.Native;
using MicroVm.Memory;

namespace MicroVm.InstructionEmulator;

/// <summary>
/// The processor as the instruction handlers act on it: registers, operands, memory through the guest's page tables,
/// extended state, and the exception to raise. One for each vCPU; used by that vCPU's thread only. Allocates nothing
/// after it is made.
/// </summary>
internal sealed class AssistCpu : IVATryGetRegisterValueProvider
{
    internal const ulong FlagCf = 1;
    internal const ulong FlagPf = 4;
    internal const ulong FlagAf = 0x10;
    internal const ulong FlagZf = 0x40;
    internal const ulong FlagSf = 0x80;
    internal const ulong FlagTf = 0x100;
    internal const ulong FlagOf = 0x800;
    internal const ulong FlagRf = 0x10000;
    internal const ulong FlagVm = 0x20000;
    internal const ulong FlagAc = 0x40000;
    internal const ulong Arithmetic = FlagCf | FlagPf | FlagAf | FlagZf | FlagSf | FlagOf;
    internal const ulong Cr0Pe = 1;
    internal const ulong Cr0Mp = 2;
    internal const ulong Cr0Em = 4;
    internal const ulong Cr0Ts = 8;
    internal const ulong Cr0Ne = 0x20;
    internal const ulong Cr4Osfxsr = 1 << 9;
    internal const ulong Cr4Fsgsbase = 1 << 16;
    internal const ulong Cr4Osxsave = 1 << 18;
    internal const ulong Cr4Smap = 1 << 21;
    internal const ulong Cr4Pke = 1 << 22;
    private const ulong Cr4La57 = 1 << 12;
    private const ulong EferLma = 1 << 10;

    public AssistCpu(IVcpuPort port, GuestMemory memory, XstateLayout layout)
    {
        Port = port;
        Layout = layout;
        Operand = new GuestOperand(this, memory);
        Xstate = new ExtendedState(port, layout);
    }

    public IVcpuPort Port { get; }

    public XstateLayout Layout { get; }

    /// <summary>The memory that the instruction reads or writes.</summary>
    public GuestOperand Operand { get; }

    /// <summary>Vector registers and what else XSAVE saves.</summary>
    public ExtendedState Xstate { get; }

    public ref kvm_regs Regs => ref Port.Regs;

    public ref kvm_sregs Sregs => ref Port.Sregs;

    /// <summary>16, 32 or 64: the width of the code that runs.</summary>
    public int Bitness { get; private set; }

    /// <summary>Current privilege level, 0 to 3.</summary>
    public int Cpl { get; private set; }

    /// <summary>Why an <see cref="Outcome.Unsupported"/> was returned.</summary>
    public string? FailureReason { get; private set; }

    /// <summary>The exception of <see cref="Outcome.Fault"/> and <see cref="Outcome.Trap"/>.</summary>
    public byte FaultVector { get; private set; }

    /// <summary>Its error code, when it has one.</summary>
    public uint? FaultErrorCode { get; private set; }

    /// <summary>For #PF: the linear address, for CR2.</summary>
    public ulong FaultAddress { get; private set; }

    /// <summary>The trap is an <c>int n</c>.</summary>
    public bool IsSoftwareInterrupt { get; private set; }

    /// <summary>Takes the mode from the registers, which the port has fetched.</summary>
    public void Begin()
    {
        ref kvm_sregs sregs = ref Sregs;
        bool protectedMode = (sregs.cr0 & Cr0Pe) != 0;
        bool virtual86 = protectedMode && (Regs.rflags & FlagVm) != 0;
        Cpl = virtual86 ? 3 : protectedMode ? sregs.cs.selector & 3 : 0;
        Bitness = (sregs.efer & EferLma) != 0 && sregs.cs.l != 0 ? 64 : protectedMode && !virtual86 && sregs.cs.db != 0 ? 32 : 16;
        FailureReason = null;
        IsSoftwareInterrupt = false;
        Operand.Forget();
        Xstate.Forget();
    }

    public Outcome Fault(byte vector, uint? errorCode = null)
    {
        FaultVector = vector;
        FaultErrorCode = errorCode;
        return Outcome.Fault;
    }

    /// <summary>A #PF at a linear address, which CR2 gets.</summary>
    public Outcome PageFault(ulong linear, uint errorCode)
    {
        FaultAddress = linear;
        return Fault(KvmAbi.PF_VECTOR, errorCode);
    }

    public Outcome Trap(byte vector, bool softwareInterrupt = false)
    {
        FaultVector = vector;
        FaultErrorCode = null;
        IsSoftwareInterrupt = softwareInterrupt;
        return Outcome.Trap;
    }

    public Outcome UndefinedOpcode() => Fault(KvmAbi.UD_VECTOR);

    public Outcome GeneralProtection() => Fault(KvmAbi.GP_VECTOR, 0);

    public Outcome DeviceNotAvailable() => Fault(KvmAbi.NM_VECTOR);

    public Outcome Unsupported(string reason)
    {
        FailureReason = reason;
        return Outcome.Unsupported;
    }

    /// <summary>True when the bits above the paging mode's width all equal its highest one.</summary>
    public bool IsCanonical(ulong address)
    {
        int unused = (Sregs.cr4 & Cr4La57) != 0 ? 7 : 16;
        return (ulong)((long)(address << unused) >> unused) == address;
    }

    /// <summary>A segment register; DS for those that are none.</summary>
    public ref kvm_segment Segment(Register name)
    {
        ref kvm_sregs sregs = ref Sregs;
        switch (name)
        {
            case Register.ES: return ref sregs.es;
            case Register.CS: return ref sregs.cs;
            case Register.SS: return ref sregs.ss;
            case Register.FS: return ref sregs.fs;
            case Register.GS: return ref sregs.gs;
            default: return ref sregs.ds;
        }
    }

    /// <summary>Writes the extended state back.</summary>
    public Outcome StoreXstate() => Xstate.TryStore() ? Outcome.Done : Unsupported("KVM refuses the extended state");

    /// <summary>Reads a general register of any width, zero-extended.</summary>
    public ulong ReadRegister(Register register)
    {
        if (register is >= Register.AH and <= Register.BH)
        {
            return Gpr(register - Register.AH) >> 8 & 0xFF;
        }

        ulong value = Gpr(register.GetFullRegister() - Register.RAX);
        return register.GetSize() switch
        {
            1 => (byte)value,
            2 => (ushort)value,
            4 => (uint)value,
            _ => value,
        };
    }

    /// <summary>Writes a general register; a 32-bit write clears the upper half, narrower ones leave the rest.</summary>
    public void WriteRegister(Register register, ulong value)
    {
        if (register is >= Register.AH and <= Register.BH)
        {
            ref ulong high = ref Gpr(register - Register.AH);
            high = (high & ~0xFF00ul) | ((value & 0xFF) << 8);
            return;
        }

        ref ulong full = ref Gpr(register.GetFullRegister() - Register.RAX);
        full = register.GetSize() switch
        {
            1 => (full & ~0xFFul) | (byte)value,
            2 => (full & ~0xFFFFul) | (ushort)value,
            4 => (uint)value,
            _ => value,
        };
    }

    /// <summary>Reads an integer operand, register or memory, of up to 8 bytes, zero-extended.</summary>
    public Outcome ReadOperand(in Instruction instruction, int operand, out ulong value)
    {
        if (instruction.GetOpKind(operand) == OpKind.Register)
        {
            value = ReadRegister(instruction.GetOpRegister(operand));
            return Outcome.Done;
        }

        value = 0;
        int size = instruction.MemorySize.GetSize();
        Outcome outcome = Operand.Translate(in instruction, operand, size, PageAccess.Read);
        if (outcome == Outcome.Done)
        {
            Operand.CopyFromGuest(0, MemoryMarshal.AsBytes(new Span<ulong>(ref value))[..size]);
        }

        return outcome;
    }

    /// <summary>Writes an integer operand, register or memory, of up to 8 bytes.</summary>
    public Outcome WriteOperand(in Instruction instruction, int operand, ulong value)
    {
        if (instruction.GetOpKind(operand) == OpKind.Register)
        {
            WriteRegister(instruction.GetOpRegister(operand), value);
            return Outcome.Done;
        }

        int size = instruction.MemorySize.GetSize();
        Outcome outcome = Operand.Translate(in instruction, operand, size, PageAccess.Write);
        if (outcome == Outcome.Done)
        {
            Operand.CopyToGuest(0, MemoryMarshal.AsBytes(new ReadOnlySpan<ulong>(in value))[..size]);
        }

        return outcome;
    }

    /// <summary>Width in bits of an operand: 8, 16, 32 or 64.</summary>
    public static int OperandBits(in Instruction instruction, int operand) => 8 * (instruction.GetOpKind(operand) == OpKind.Register
        ? instruction.GetOpRegister(operand).GetSize()
        : instruction.MemorySize.GetSize());

    /// <summary>Replaces the arithmetic flags.</summary>
    public void SetFlags(ulong affected, ulong flags) => Regs.rflags = (Regs.rflags & ~affected) | flags;

    /// <inheritdoc/>
    bool IVATryGetRegisterValueProvider.TryGetRegisterValue(Register register, int elementIndex, int elementSize, out ulong value)
    {
        // Segment bases are added by TranslateOperand, which must see the offset alone to check it against the limit.
        value = register.IsSegmentRegister() ? 0 : register.IsGPR() ? ReadRegister(register) : 0;
        return register.IsSegmentRegister() || register.IsGPR();
    }

    private ref ulong Gpr(int index)
    {
        ref kvm_regs regs = ref Regs;
        switch (index)
        {
            case 0: return ref regs.rax;
            case 1: return ref regs.rcx;
            case 2: return ref regs.rdx;
            case 3: return ref regs.rbx;
            case 4: return ref regs.rsp;
            case 5: return ref regs.rbp;
            case 6: return ref regs.rsi;
            case 7: return ref regs.rdi;
            case 8: return ref regs.r8;
            case 9: return ref regs.r9;
            case 10: return ref regs.r10;
            case 11: return ref regs.r11;
            case 12: return ref regs.r12;
            case 13: return ref regs.r13;
            case 14: return ref regs.r14;
            default: return ref regs.r15;
        }
    }
}
