using Iced.Intel;
using MicroVm.Kvm.Native;
using MicroVm.Linux;
using static Iced.Intel.AssemblerRegisters;

namespace MicroVm.InstructionEmulator.Tests;

/// <summary>Executes an instruction on this processor, between loading and storing all general registers and flags.</summary>
internal sealed unsafe class NativeInstruction : IDisposable
{
    private readonly ExecutableCode _code;

    public NativeInstruction(Action<Assembler> instruction)
    {
        Bytes = Assemble(instruction);
        Assembler c = new(64);
        c.endbr64();
        c.push(rbx);
        c.push(rbp);
        c.push(r12);
        c.push(r13);
        c.push(r14);
        c.push(r15);
        c.push(rdi);
        c.push(__qword_ptr[rdi + Offset(nameof(kvm_regs.rflags))]);
        c.popfq();
        foreach ((AssemblerRegister64 register, string name) in Registers)
        {
            if (name != nameof(kvm_regs.rdi))
            {
                c.mov(register, __qword_ptr[rdi + Offset(name)]);
            }
        }

        c.mov(rdi, __qword_ptr[rdi + Offset(nameof(kvm_regs.rdi))]);
        c.db(Bytes);
        c.xchg(__qword_ptr[rsp], rdi);
        foreach ((AssemblerRegister64 register, string name) in Registers)
        {
            if (name != nameof(kvm_regs.rdi))
            {
                c.mov(__qword_ptr[rdi + Offset(name)], register);
            }
        }

        c.pushfq();
        c.pop(__qword_ptr[rdi + Offset(nameof(kvm_regs.rflags))]);
        c.pop(__qword_ptr[rdi + Offset(nameof(kvm_regs.rdi))]);
        c.pop(r15);
        c.pop(r14);
        c.pop(r13);
        c.pop(r12);
        c.pop(rbp);
        c.pop(rbx);
        c.cld();
        c.ret();
        _code = new ExecutableCode(Assemble(c));
    }

    /// <summary>The instruction's machine code.</summary>
    public byte[] Bytes { get; }

    /// <summary>The general registers but RSP, with their names in <see cref="kvm_regs"/>.</summary>
    private static (AssemblerRegister64 Register, string Name)[] Registers =>
    [
        (rax, "rax"), (rbx, "rbx"), (rcx, "rcx"), (rdx, "rdx"), (rsi, "rsi"), (rdi, "rdi"), (rbp, "rbp"), (r8, "r8"), (r9, "r9"),
        (r10, "r10"), (r11, "r11"), (r12, "r12"), (r13, "r13"), (r14, "r14"), (r15, "r15"),
    ];

    public static byte[] Assemble(Action<Assembler> instruction)
    {
        Assembler c = new(64);
        instruction(c);
        return Assemble(c);
    }

    public void Run(ref kvm_regs regs)
    {
        fixed (kvm_regs* p = &regs)
        {
            ((delegate* unmanaged<kvm_regs*, void>)_code.EntryPoint)(p);
        }
    }

    public void Dispose() => _code.Dispose();

    private static byte[] Assemble(Assembler c)
    {
        using MemoryStream stream = new();
        c.Assemble(new StreamCodeWriter(stream), 0);
        return stream.ToArray();
    }

    private static int Offset(string field) => (int)System.Runtime.InteropServices.Marshal.OffsetOf<kvm_regs>(field);
}
